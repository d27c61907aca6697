"""What billing tells the others about invoices."""

from collections.abc import Sequence
from typing import Final

import msgspec
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from billing_service.domain.rating import in_minor_units
from billing_service.invoicing.models import Invoice
from tenantry import uuid7
from tenantry.events import lane_of

TOPIC: Final = "billing.events.v1"
FINALIZED: Final = "invoice.finalized.v1"

# Thousands of events at once: one statement instead of append_outbox in a loop.
_INSERT: Final = text(
    """
    INSERT INTO system.outbox (id, lane, topic, key, version, tenant_id, type, headers, payload)
    SELECT id, lane, :topic, tenant_id::text, version, tenant_id, :type, '{}', payload
      FROM unnest(CAST(:ids AS uuid[]), CAST(:lanes AS smallint[]), CAST(:tenant_ids AS uuid[]),
                  CAST(:versions AS bigint[]), CAST(:payloads AS bytea[]))
           AS event (id, lane, tenant_id, version, payload)
    """
)
_NOTIFY: Final = text(
    "SELECT pg_notify('outbox', lane::text) FROM unnest(CAST(:lanes AS smallint[])) AS changed (lane)"
)

_encode = msgspec.json.Encoder(decimal_format="string").encode


async def publish_finalized(session: AsyncSession, invoices: Sequence[Invoice]) -> None:
    """Announce final invoices in the caller's transaction. The number in its series orders a tenant's events."""
    lanes = [lane_of(str(invoice.tenant_id)) for invoice in invoices]
    await session.execute(
        _INSERT,
        {
            "topic": TOPIC,
            "type": FINALIZED,
            "ids": [uuid7() for _ in invoices],
            "lanes": lanes,
            "tenant_ids": [invoice.tenant_id for invoice in invoices],
            "versions": [invoice.sequence for invoice in invoices],
            "payloads": [_encode(_finalized(invoice)) for invoice in invoices],
        },
    )
    await session.execute(_NOTIFY, {"lanes": sorted(set(lanes))})


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
