"""The table of logos."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import ForeignKey, Integer
from sqlalchemy.orm import Mapped, mapped_column

from tenant_service.models import Record


class LogoRow(Record):
    """A picture that a tenant has uploaded, named by its content; its configuration says which one is shown."""

    __tablename__ = "branding_logo"
    __table_args__ = {"schema": "system"}  # noqa: RUF012 - SQLAlchemy's

    tenant_id: Mapped[UUID] = mapped_column(ForeignKey("system.tenant.id"), primary_key=True)
    sha256: Mapped[bytes] = mapped_column(primary_key=True)
    media_type: Mapped[str]
    width: Mapped[int] = mapped_column(Integer)
    height: Mapped[int] = mapped_column(Integer)
    content: Mapped[bytes]
    created_at: Mapped[datetime]
