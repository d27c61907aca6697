"""Runs and invoices on the wire."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from billing_service.domain.money import plain
from billing_service.domain.rating import in_minor_units
from billing_service.domain.runs import ItemState, RunState
from billing_service.domain.texts import Instant
from billing_service.invoicing.models import Invoice, Run, StoredLine


class RunIn(BaseModel):
    """Bill the periods that ended at or before `as_of`, of all tenants or of those given."""

    model_config = ConfigDict(extra="forbid")

    as_of: Instant
    tenants: Annotated[list[Annotated[str, Field(min_length=1, max_length=128)]], Field(max_length=10_000)] | None = (
        None
    )
    dry_run: bool = False


class Money(BaseModel):
    currency: str
    amount: str


class RunOut(BaseModel):
    """`progress` counts periods by what became of them, `totals` sums what was (in a dry run: would be) invoiced."""

    id: UUID
    state: RunState
    as_of: datetime
    dry_run: bool
    tenants: list[UUID] | None
    grace_seconds: int
    cut_id: UUID | None
    progress: dict[ItemState, int]
    periods: int
    totals: list[Money]
    error: str | None
    created_at: datetime
    finished_at: datetime | None

    @classmethod
    def of(cls, run: Run, progress: Mapping[ItemState, int], totals: Sequence[tuple[str, Decimal]]) -> "RunOut":
        return cls(
            id=run.id,
            state=run.state,
            as_of=run.as_of,
            dry_run=run.dry_run,
            tenants=None if run.tenants is None else list(run.tenants),
            grace_seconds=run.grace_seconds,
            cut_id=run.cut_id,
            progress=dict(progress),
            periods=sum(progress.values()),
            totals=[Money(currency=currency, amount=in_minor_units(total, currency)) for currency, total in totals],
            error=run.error,
            created_at=run.created_at,
            finished_at=run.finished_at,
        )


class PeriodOut(BaseModel):
    """Half-open: `to` belongs to the next period."""

    start: Annotated[datetime, Field(serialization_alias="from")]
    end: Annotated[datetime, Field(serialization_alias="to")]


class RunItemOut(BaseModel):
    n: int
    tenant_id: UUID
    subscription_id: UUID
    period: PeriodOut
    state: ItemState
    invoice_id: UUID | None
    currency: str | None
    total: str | None
    reason: str | None

    @classmethod
    def of(cls, row: Any) -> "RunItemOut":
        return cls(
            n=row.n,
            tenant_id=row.tenant_id,
            subscription_id=row.subscription_id,
            period=PeriodOut(start=row.period_from, end=row.period_to),
            state=ItemState(row.state),
            invoice_id=row.invoice_id,
            currency=row.currency,
            total=None if row.total is None else in_minor_units(row.total, row.currency),
            reason=row.reason,
        )


class UsageVersion(BaseModel):
    """Which usage a line has billed: how many events, in how many rollups, and a digest of their versions."""

    events: str
    rollups: int
    digest: str


class LineOut(BaseModel):
    """Where `period` is not the invoice's, the line adjusts what was billed for it, and may be negative."""

    n: int
    charge: str
    kind: str
    description: str
    quantity: str | None
    unit_amount: str | None
    exact_amount: str
    amount: str
    period: PeriodOut
    formula: str
    inputs: dict[str, Any]
    catalogue_version: str
    usage: UsageVersion | None

    @classmethod
    def of(cls, line: StoredLine, invoice: Invoice) -> "LineOut":
        usage = None
        if line.usage_count is not None and line.usage_rollups is not None and line.usage_digest is not None:
            usage = UsageVersion(events=plain(line.usage_count), rollups=line.usage_rollups, digest=line.usage_digest)
        return cls(
            n=line.n,
            charge=line.charge,
            kind=line.kind,
            description=line.description,
            quantity=None if line.quantity is None else plain(line.quantity),
            unit_amount=None if line.unit_amount is None else plain(line.unit_amount),
            exact_amount=plain(line.exact_amount),
            amount=in_minor_units(line.amount, invoice.currency),
            period=PeriodOut(start=line.period_from or invoice.period_from, end=line.period_to or invoice.period_to),
            formula=line.formula,
            inputs=line.inputs,
            catalogue_version=f"{invoice.plan_code}@{invoice.plan_version}",
            usage=usage,
        )


class InvoiceHead(BaseModel):
    """An invoice without its lines."""

    id: UUID
    number: str
    status: Literal["final"] = "final"
    payment_status: Literal["open", "paid"]
    account: str
    tenant_id: UUID
    subscription_id: UUID
    plan: str
    plan_version: int
    currency: str
    period: PeriodOut
    subtotal: str
    discounts: str
    tax: str
    total: str
    settled: str
    amount_due: str
    issued_at: datetime
    run_id: UUID
    cut_id: UUID

    @classmethod
    def of(cls, invoice: Invoice) -> "InvoiceHead":
        return cls(**_head(invoice))


class InvoiceOut(InvoiceHead):
    lines: list[LineOut]

    @classmethod
    def of(cls, invoice: Invoice) -> "InvoiceOut":
        return cls(**_head(invoice), lines=[LineOut.of(line, invoice) for line in invoice.lines])


def _head(invoice: Invoice) -> dict[str, Any]:
    """Neither coupons, taxes nor payments exist yet: what the lines sum to is what is due."""
    total, nothing = (in_minor_units(amount, invoice.currency) for amount in (invoice.total, Decimal(0)))
    return {
        "id": invoice.id,
        "number": invoice.number,
        "payment_status": "open" if invoice.total else "paid",
        "account": invoice.account,
        "tenant_id": invoice.tenant_id,
        "subscription_id": invoice.subscription_id,
        "plan": invoice.plan_code,
        "plan_version": invoice.plan_version,
        "currency": invoice.currency,
        "period": PeriodOut(start=invoice.period_from, end=invoice.period_to),
        "subtotal": total,
        "discounts": nothing,
        "tax": nothing,
        "total": total,
        "settled": nothing,
        "amount_due": total,
        "issued_at": invoice.issued_at,
        "run_id": invoice.run_id,
        "cut_id": invoice.cut_id,
    }
