"""Persons and the tenants that they are members of."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import ForeignKey
from sqlalchemy.orm import Mapped, mapped_column

from tenant_service.models import Record

_IN_SYSTEM = {"schema": "system"}


class PersonRow(Record):
    """Somebody with an e-mail address. Tenants never see a person's id: members have ids of their own."""

    __tablename__ = "person"
    __table_args__ = _IN_SYSTEM

    id: Mapped[UUID] = mapped_column(primary_key=True)
    email: Mapped[str]
    created_at: Mapped[datetime]


class MemberRow(Record):
    """A person in a tenant."""

    __tablename__ = "member"
    __table_args__ = _IN_SYSTEM

    id: Mapped[UUID] = mapped_column(primary_key=True)
    tenant_id: Mapped[UUID] = mapped_column(ForeignKey("system.tenant.id"))
    person_id: Mapped[UUID] = mapped_column(ForeignKey("system.person.id"))
    name: Mapped[str | None]
    roles: Mapped[list[str]]
    version: Mapped[int]
    created_at: Mapped[datetime]
