"""GET of an invoice's verification."""

from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from fastapi import APIRouter, Request
from pydantic import BaseModel

from billing_service.dependencies import CurrentTenancy, Reader
from billing_service.domain.money import plain
from billing_service.domain.rating import in_minor_units
from billing_service.domain.verification import Verdict
from billing_service.invoicing import repository
from billing_service.invoicing.evidence import EvidenceSource
from billing_service.invoicing.verifying import Verified, VerifiedLine, verify
from tenantry import NotFound

router = APIRouter(prefix="/v1", tags=["invoices"])


class CorrectionOut(BaseModel):
    """What took an event back after it was billed."""

    id: UUID
    cancels: dict[str, str]
    replacement: dict[str, str] | None
    reason: str | None
    received_at: datetime


class AdjustingLine(BaseModel):
    """The line of a later invoice that adjusts this one."""

    invoice_id: UUID
    number: str
    n: int
    quantity: str | None
    amount: str


class LineVerification(BaseModel):
    """`billed` and `recomputed` are amounts; the quantities are what raw events come to, null where none were asked."""

    n: int
    charge: str
    kind: str
    result: Verdict
    billed: str
    recomputed: str
    quantity_at_cut: str | None
    quantity_now: str | None
    corrections: list[CorrectionOut]
    adjusted_by: list[AdjustingLine]
    unbilled_quantity: str
    expired_days: list[str]

    @classmethod
    def of(cls, verified: VerifiedLine, currency: str) -> "LineVerification":
        line, evidence = verified.line, verified.evidence
        return cls(
            n=line.n,
            charge=line.charge,
            kind=line.kind,
            result=verified.verdict,
            billed=in_minor_units(line.amount, currency),
            recomputed=in_minor_units(verified.amount, currency),
            quantity_at_cut=_text(None if evidence is None else evidence.at_cut.quantity),
            quantity_now=_text(None if evidence is None else evidence.now.quantity),
            corrections=[] if evidence is None else [CorrectionOut(**each) for each in evidence.corrections],
            adjusted_by=[_adjusting(each, currency) for each in verified.adjusted_by],
            unbilled_quantity=plain(verified.unbilled),
            expired_days=[] if evidence is None else evidence.expired_days,
        )


class VerificationOut(BaseModel):
    """`result` is that of the worst line. `equal`: inputs and raw events give what was billed. `changed_since`: they do
    as they were at the cut, and have been corrected or joined by late events since. `evidence_expired` and
    `evidence_erased`: raw events are gone. `differs`: the line is not what its inputs or its events make of it.
    """

    invoice_id: UUID
    number: str
    result: Verdict
    total: str
    recomputed_total: str
    lines: list[LineVerification]

    @classmethod
    def of(cls, verified: Verified) -> "VerificationOut":
        invoice = verified.invoice
        return cls(
            invoice_id=invoice.id,
            number=invoice.number,
            result=verified.verdict,
            total=in_minor_units(invoice.total, invoice.currency),
            recomputed_total=in_minor_units(verified.total, invoice.currency),
            lines=[LineVerification.of(line, invoice.currency) for line in verified.lines],
        )


@router.get("/invoices/{invoice_id}/verify")
async def verify_invoice(
    invoice_id: UUID, request: Request, session: Reader, tenancy: CurrentTenancy
) -> VerificationOut:
    """The invoice computed again, line by line, from what it was computed from and from the raw events."""
    invoice = await repository.find(session, invoice_id)
    if invoice is None:
        raise NotFound
    source: EvidenceSource = request.app.state.evidence
    erased = tenancy.directory.is_purged(invoice.tenant_id)
    async with tenancy.databases.system_session() as system:
        return VerificationOut.of(await verify(system, invoice, source, erased=erased))


def _text(quantity: Decimal | None) -> str | None:
    return None if quantity is None else plain(quantity)


def _adjusting(row: Any, currency: str) -> AdjustingLine:
    return AdjustingLine(
        invoice_id=row.invoice_id,
        number=row.number,
        n=row.n,
        quantity=_text(row.quantity),
        amount=in_minor_units(row.amount, currency),
    )
