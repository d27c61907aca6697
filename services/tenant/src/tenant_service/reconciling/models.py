"""The tables of reconciliations and of what they find."""

from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

from sqlalchemy import Boolean, ForeignKey, Integer
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from tenant_service.models import Record

_IN_SYSTEM = {"schema": "system"}


class Phase(StrEnum):
    """How far a reconciliation has come: topics and the registry's own affairs, the services, what was repaired first.

    Topics come first, because what is published to services again must not contradict them.
    """

    COMPARING = "comparing"
    LOOKING = "looking"
    VERIFYING = "verifying"
    ENDED = "ended"


class ReconciliationRow(Record):
    """One reconciliation, of a tenant or of all; `reached` is the last tenant that a page was made for."""

    __tablename__ = "reconciliation"
    __table_args__ = _IN_SYSTEM

    id: Mapped[UUID] = mapped_column(primary_key=True)
    tenant_id: Mapped[UUID | None] = mapped_column(ForeignKey("system.tenant.id"))
    repair: Mapped[bool] = mapped_column(Boolean)
    state: Mapped[str]
    requested_by: Mapped[str]
    reached: Mapped[UUID | None]
    pages: Mapped[int] = mapped_column(Integer)
    all_pages: Mapped[bool] = mapped_column(Boolean)
    opened: Mapped[int] = mapped_column(Integer)
    repaired: Mapped[int] = mapped_column(Integer)
    closed: Mapped[int] = mapped_column(Integer)
    created_at: Mapped[datetime]
    ended_at: Mapped[datetime | None]


class PageRow(Record):
    """A page that a service is still to be looked at. `look` counts from 1; an answer to an earlier one is no answer.

    `baseline` has the versions of the registry at the look before.
    """

    __tablename__ = "reconciliation_page"
    __table_args__ = _IN_SYSTEM

    reconciliation_id: Mapped[UUID] = mapped_column(ForeignKey("system.reconciliation.id"), primary_key=True)
    position: Mapped[int] = mapped_column(Integer, primary_key=True)
    service: Mapped[str] = mapped_column(primary_key=True)
    after_id: Mapped[UUID | None]
    until_id: Mapped[UUID | None]
    look: Mapped[int] = mapped_column(Integer)
    request_id: Mapped[UUID]
    due_at: Mapped[datetime]
    asked_at: Mapped[datetime | None]
    answered_at: Mapped[datetime | None]
    report: Mapped[dict[str, Any] | None] = mapped_column(JSONB(none_as_null=True))
    error: Mapped[str | None]
    baseline: Mapped[dict[str, int]] = mapped_column(JSONB)


class FindingRow(Record):
    """Something that is wrong, or was: `closed_at` is when it was seen to be right again."""

    __tablename__ = "finding"
    __table_args__ = _IN_SYSTEM

    id: Mapped[UUID] = mapped_column(primary_key=True)
    code: Mapped[str]
    severity: Mapped[str]
    service: Mapped[str]
    subject: Mapped[str]
    tenant_id: Mapped[UUID | None]
    detail: Mapped[str]
    repair: Mapped[str]
    opened_at: Mapped[datetime]
    seen_at: Mapped[datetime]
    repaired_at: Mapped[datetime | None]
    repaired_in: Mapped[UUID | None]
    run_id: Mapped[UUID | None]
    closed_at: Mapped[datetime | None]
