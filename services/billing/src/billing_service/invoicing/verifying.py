"""Use case of `verify`: every line of a final invoice computed again, and held against the raw events."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Any, Final

from sqlalchemy import Row, text
from sqlalchemy.ext.asyncio import AsyncSession

from billing_service.bill_from.repository import bill_froms
from billing_service.domain.periods import Period, billed_usage
from billing_service.domain.rating import ZERO, LineKind
from billing_service.domain.verification import Verdict, judge, recomputed
from billing_service.invoicing.drafting import stored_exact
from billing_service.invoicing.evidence import Evidence, EvidenceSource
from billing_service.invoicing.models import Invoice, StoredLine
from billing_service.usage.repository import cut_offsets

_ADJUSTED_BY: Final = text(
    """
    SELECT invoice.id AS invoice_id, invoice.number, line.n, line.charge, line.period_from, line.quantity, line.amount
      FROM invoice_final AS invoice
      JOIN invoice_line AS line ON line.tenant_id = invoice.tenant_id AND line.invoice_id = invoice.id
     WHERE invoice.tenant_id = :tenant_id AND invoice.subscription_id = :subscription_id
       AND invoice.period_from > :after AND line.period_from IS NOT NULL AND line.kind = 'charge'
     ORDER BY invoice.sequence, line.n
    """
)


@dataclass(frozen=True, slots=True)
class VerifiedLine:
    """What became of one line. `evidence` is there where raw events stand behind it and could be asked.

    `adjusted_by` are the lines of later invoices about the same charge and period, and `unbilled` the part of its
    quantity of now that neither it nor they have billed.
    """

    line: StoredLine
    verdict: Verdict
    amount: Decimal
    evidence: Evidence | None = None
    adjusted_by: Sequence[Row[Any]] = ()
    unbilled: Decimal = ZERO


@dataclass(slots=True)
class Verified:
    """`total` is what the lines come to when they are computed again."""

    invoice: Invoice
    verdict: Verdict = Verdict.EQUAL
    total: Decimal = ZERO
    lines: list[VerifiedLine] = field(default_factory=list)


async def verify(session: AsyncSession, invoice: Invoice, source: EvidenceSource, *, erased: bool) -> Verified:
    """Reads only, in the caller's transaction, which sees the tenant and system tables.

    `erased` says that the tenant has been purged: its raw events are gone for good. Raises Unavailable where the
    evidence cannot be asked for now.
    """
    offsets = await cut_offsets(session, invoice.cut_id)
    bill_from = (await bill_froms(session, [invoice.tenant_id])).get(invoice.tenant_id)
    later = (
        await session.execute(
            _ADJUSTED_BY,
            {
                "tenant_id": invoice.tenant_id,
                "subscription_id": invoice.subscription_id,
                "after": invoice.period_from,
            },
        )
    ).all()
    found = Verified(invoice)
    for line in invoice.lines:
        period = _period(line, invoice)
        again = recomputed(line.charge, LineKind(line.kind), line.inputs, invoice.currency, period)
        recomputes = (stored_exact(again.exact_amount), again.amount) == (line.exact_amount, line.amount)
        quantity = _metered(line)
        evidence = None
        if quantity is not None and not erased:
            span = billed_usage(period, bill_from)
            evidence = await source.find(invoice.tenant_id, line.inputs["meter"], span, offsets)
        verdict = judge(
            recomputes=recomputes,
            quantity=quantity,
            counted=None if evidence is None else evidence.counted,
            expired=evidence is not None and bool(evidence.expired_days),
            erased=erased,
        )
        adjusted = [each for each in later if (each.charge, each.period_from) == (line.charge, period.start)]
        unbilled = ZERO
        if verdict is Verdict.CHANGED_SINCE and evidence is not None and quantity is not None:
            unbilled = evidence.now.quantity - quantity - sum((each.quantity or ZERO for each in adjusted), ZERO)
        found.lines.append(VerifiedLine(line, verdict, again.amount, evidence, adjusted, unbilled))
        found.total += again.amount
    verdicts = [each.verdict for each in found.lines]
    if found.total != invoice.total:
        verdicts.append(Verdict.DIFFERS)
    found.verdict = max(verdicts, key=lambda verdict: verdict.rank, default=Verdict.EQUAL)
    return found


def _metered(line: StoredLine) -> Decimal | None:
    """The quantity for which there are raw events; bounds of a charge have it on the charge's own line."""
    if line.kind != LineKind.CHARGE or "meter" not in line.inputs:
        return None
    return Decimal(line.inputs["quantity"])


def _period(line: StoredLine, invoice: Invoice) -> Period:
    start: datetime = line.period_from or invoice.period_from
    end: datetime = line.period_to or invoice.period_to
    return Period(start, end, line.inputs.get("days_used", 1), line.inputs.get("days_whole", 1))
