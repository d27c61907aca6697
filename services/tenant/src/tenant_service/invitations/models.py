"""Invitations."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import ForeignKey
from sqlalchemy.orm import Mapped, mapped_column

from tenant_service.models import Record

_IN_SYSTEM = {"schema": "system"}


class InvitationRow(Record):
    """An invitation; its newest code is known by the SHA-256, and not at all before one was asked for."""

    __tablename__ = "invitation"
    __table_args__ = _IN_SYSTEM

    id: Mapped[UUID] = mapped_column(primary_key=True)
    tenant_id: Mapped[UUID] = mapped_column(ForeignKey("system.tenant.id"))
    email: Mapped[str]
    roles: Mapped[list[str]]
    delivery: Mapped[str]
    code_sha256: Mapped[bytes | None]
    invited_by: Mapped[str]
    created_at: Mapped[datetime]
    expires_at: Mapped[datetime]
    accepted_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]
    member_id: Mapped[UUID | None]
