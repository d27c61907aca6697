"""What billing tells the others about invoices."""

from collections.abc import Sequence
from typing import Final

from sqlalchemy.ext.asyncio import AsyncSession

from billing_service.domain.rating import in_minor_units
from billing_service.invoicing.models import Invoice
from tenantry.events import OutboxEvent, append_outbox_many

TOPIC: Final = "billing.events.v1"
FINALIZED: Final = "invoice.finalized.v1"


async def publish_finalized(session: AsyncSession, invoices: Sequence[Invoice]) -> None:
    """Announce final invoices in the caller's transaction. The number in its series orders a tenant's events."""
    events = [
        OutboxEvent(
            topic=TOPIC,
            key=str(invoice.tenant_id),
            type=FINALIZED,
            data=_finalized(invoice),
            version=invoice.sequence,
            tenant_id=invoice.tenant_id,
        )
        for invoice in invoices
    ]
    await append_outbox_many(session, events)


def _finalized(invoice: Invoice) -> dict[str, object]:
    return {
        "invoice_id": str(invoice.id),
        "number": invoice.number,
        "tenant_id": str(invoice.tenant_id),
        "account": invoice.account,
        "subscription_id": str(invoice.subscription_id),
        "plan": invoice.plan_code,
        "plan_version": invoice.plan_version,
        "currency": invoice.currency,
        "total": in_minor_units(invoice.total, invoice.currency),
        "period": {"from": invoice.period_from, "to": invoice.period_to},
        "issued_at": invoice.issued_at,
    }
