"""What remains of tenants that are gone."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import ForeignKey
from sqlalchemy.orm import Mapped, mapped_column

from tenant_service.models import Record


class PurgeCertificateRow(Record):
    """A certificate; written once, by grant. `digest` is what the platform's audit trail remembers of it."""

    __tablename__ = "purge_certificate"
    __table_args__ = {"schema": "system"}  # noqa: RUF012 - SQLAlchemy declares it on the instance

    tenant_id: Mapped[UUID] = mapped_column(ForeignKey("system.tenant.id"), primary_key=True)
    document: Mapped[dict[str, Any]]
    digest: Mapped[str]
    created_at: Mapped[datetime]
