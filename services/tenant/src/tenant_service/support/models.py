"""Grants of support access."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import ForeignKey
from sqlalchemy.orm import Mapped, mapped_column

from tenant_service.models import Record

_IN_SYSTEM = {"schema": "system"}


class SupportGrantRow(Record):
    """Who was let into which tenant, why, for how long, and who ended it."""

    __tablename__ = "support_grant"
    __table_args__ = _IN_SYSTEM

    id: Mapped[UUID] = mapped_column(primary_key=True)
    tenant_id: Mapped[UUID] = mapped_column(ForeignKey("system.tenant.id"))
    operator: Mapped[str]
    reason: Mapped[str]
    scopes: Mapped[list[str]]
    version: Mapped[int]
    created_at: Mapped[datetime]
    expires_at: Mapped[datetime]
    ended_at: Mapped[datetime | None]
    ended_by: Mapped[str | None]
