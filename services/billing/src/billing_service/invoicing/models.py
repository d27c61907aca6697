"""Runs, their work and invoices as they are stored."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import msgspec

from billing_service.domain.periods import Period
from billing_service.domain.runs import ItemState, RunState

PERIOD_INVOICE = "period"
"""The kind of an invoice for one period of one subscription, of which there is at most one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    id: UUID
    as_of: datetime
    tenants: tuple[UUID, ...] | None
    dry_run: bool
    grace_seconds: int
    state: RunState
    cut_id: UUID | None
    error: str | None
    requested_by: str
    created_at: datetime
    cut_requested_at: datetime | None
    finished_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One due period of a run. `billed_at` is the tenant's own clock when the run was planned."""

    n: int
    tenant_id: UUID
    subscription_id: UUID
    period: Period
    billed_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What rating made of an item."""

    n: int
    state: ItemState
    invoice_id: UUID | None = None
    currency: str | None = None
    total: Decimal | None = None
    reason: str | None = None


class StoredLine(msgspec.Struct, frozen=True, kw_only=True):
    """A line as it lies in a draft and, column by column, in `invoice_line`.

    One with a period of its own adjusts what was billed for that one.
    """

    n: int
    charge: str
    kind: str
    description: str
    quantity: Decimal | None
    unit_amount: Decimal | None
    exact_amount: Decimal
    amount: Decimal
    formula: str
    inputs: dict[str, Any]
    usage_count: Decimal | None
    usage_total: Decimal | None
    usage_rollups: int | None
    usage_digest: str | None
    period_from: datetime | None
    period_to: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    tenant_id: UUID
    id: UUID
    run_id: UUID
    kind: str
    subscription_id: UUID
    account: str
    seller_code: str
    plan_code: str
    plan_version: int
    currency: str
    period_from: datetime
    period_to: datetime
    cut_id: UUID
    total: Decimal
    issued_at: datetime
    lines: Sequence[StoredLine]


@dataclass(frozen=True, slots=True, kw_only=True)
class Invoice:
    """A final invoice; `lines` is empty where only its head was asked for."""

    tenant_id: UUID
    id: UUID
    number: str
    seller_code: str
    sequence: int
    run_id: UUID
    kind: str
    subscription_id: UUID
    account: str
    plan_code: str
    plan_version: int
    currency: str
    period_from: datetime
    period_to: datetime
    cut_id: UUID
    total: Decimal
    issued_at: datetime
    lines: Sequence[StoredLine] = ()
