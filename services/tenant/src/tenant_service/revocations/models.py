"""Revocations of tokens."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import ForeignKey
from sqlalchemy.orm import Mapped, mapped_column

from tenant_service.models import Record

_IN_SYSTEM = {"schema": "system"}


class TokenRevocationRow(Record):
    """From when on the tokens of one subject must have been issued: in one tenant, or in all (no tenant)."""

    __tablename__ = "token_revocation"
    __table_args__ = _IN_SYSTEM

    id: Mapped[UUID] = mapped_column(primary_key=True)
    tenant_id: Mapped[UUID | None] = mapped_column(ForeignKey("system.tenant.id"))
    issuer: Mapped[str]
    subject: Mapped[str]
    not_before: Mapped[datetime]
    reason: Mapped[str]
    version: Mapped[int]
    created_at: Mapped[datetime]
    created_by: Mapped[str]
    expires_at: Mapped[datetime]
