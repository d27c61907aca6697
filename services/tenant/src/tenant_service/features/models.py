"""The tables of flags."""

from datetime import datetime
from typing import Any

from sqlalchemy import ForeignKey
from sqlalchemy.orm import Mapped, mapped_column

from tenant_service.models import Record

_IN_SYSTEM = {"schema": "system"}


class FlagRow(Record):
    """The present definition of a flag."""

    __tablename__ = "flag"
    __table_args__ = _IN_SYSTEM

    name: Mapped[str] = mapped_column(primary_key=True)
    version: Mapped[int]
    definition: Mapped[dict[str, Any]]
    updated_at: Mapped[datetime]


class FlagVersionRow(Record):
    """Every definition that a flag ever had."""

    __tablename__ = "flag_version"
    __table_args__ = _IN_SYSTEM

    name: Mapped[str] = mapped_column(ForeignKey("system.flag.name"), primary_key=True)
    version: Mapped[int] = mapped_column(primary_key=True)
    definition: Mapped[dict[str, Any]]
    created_at: Mapped[datetime]
    created_by: Mapped[str]
