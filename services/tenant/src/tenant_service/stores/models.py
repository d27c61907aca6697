"""The table of stores."""

from datetime import datetime

from sqlalchemy.orm import Mapped, mapped_column

from tenant_service.models import Record


class StoreRow(Record):
    """A store. `tenants` is how many are placed there now; `version` grows with what an operator says, not with it."""

    __tablename__ = "store"
    __table_args__ = {"schema": "system"}  # noqa: RUF012 - SQLAlchemy's own form

    name: Mapped[str] = mapped_column(primary_key=True)
    region: Mapped[str]
    capacity: Mapped[int | None]
    isolations: Mapped[list[str]]
    state: Mapped[str]
    tenants: Mapped[int]
    version: Mapped[int]
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]
