"""Claims on domains, and names that are held back."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import ForeignKey
from sqlalchemy.orm import Mapped, mapped_column

from tenant_service.models import Record

_IN_SYSTEM = {"schema": "system"}


class DomainClaimRow(Record):
    """A tenant's claim on a domain; many may claim it, one holds it. A released one stays as the record of it."""

    __tablename__ = "domain_claim"
    __table_args__ = _IN_SYSTEM

    id: Mapped[UUID] = mapped_column(primary_key=True)
    tenant_id: Mapped[UUID] = mapped_column(ForeignKey("system.tenant.id"))
    domain: Mapped[str]
    challenge: Mapped[str]
    state: Mapped[str]
    created_at: Mapped[datetime]
    verified_at: Mapped[datetime | None]
    checked_at: Mapped[datetime | None]
    next_check_at: Mapped[datetime | None]
    failing_since: Mapped[datetime | None]
    ended_at: Mapped[datetime | None]


class QuarantinedNameRow(Record):
    """A slug or a domain that was given up, and for how long only its former tenant may have it."""

    __tablename__ = "quarantined_name"
    __table_args__ = _IN_SYSTEM

    kind: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(primary_key=True)
    tenant_id: Mapped[UUID]
    until: Mapped[datetime]
