"""SQL of late usage. Nothing here commits."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Final, NamedTuple
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from billing_service.domain.adjustments import Booked, LineKey
from billing_service.domain.rating import LineKind
from billing_service.invoicing.models import PERIOD_INVOICE
from billing_service.invoicing.repository import LINE_TYPES
from billing_service.subscriptions.models import Subscription

_WANTED: Final = (
    "unnest(CAST(:tenant_ids AS uuid[]), CAST(:subscription_ids AS uuid[])) AS wanted (tenant_id, subscription_id)"
)
# A clock that is set back by less than the hour hides no change; what is found for nothing is only rated for nothing.
_CHANGED: Final = text(
    f"""
    SELECT billed.tenant_id, billed.subscription_id, billed.period_from, billed.period_to
      FROM billed_period AS billed JOIN {_WANTED} USING (tenant_id, subscription_id)
     WHERE billed.kind = :kind
       AND (CAST(:read_at AS timestamptz) IS NULL OR billed.usage_seen_at < :read_at)
       AND EXISTS (
           SELECT FROM usage_rollup AS rollup
            WHERE rollup.tenant_id = billed.tenant_id
              AND rollup.changed_at >= billed.usage_seen_at - interval '1 hour'
              AND rollup.window_start >= billed.period_from AND rollup.window_start < billed.period_to)
     ORDER BY billed.tenant_id, billed.subscription_id, billed.period_from
       FOR UPDATE OF billed
    """  # noqa: S608 - constant parts
)
_SEEN: Final = text(
    f"""
    UPDATE billed_period AS billed SET usage_seen_at = :read_at
      FROM {_WANTED}
     WHERE billed.tenant_id = wanted.tenant_id AND billed.subscription_id = wanted.subscription_id
       AND billed.kind = :kind AND billed.usage_seen_at < :read_at
    """  # noqa: S608 - constant parts
)
# Of final invoices and of drafts that are about to be final; a line without a period is of its invoice's own.
_BOOKED: Final = text(
    f"""
    SELECT subscription_id, period_from, charge, kind, max(description) AS description, sum(quantity) AS quantity,
           sum(exact_amount) AS exact_amount, sum(amount) AS amount
      FROM (SELECT invoice.subscription_id, COALESCE(line.period_from, invoice.period_from) AS period_from,
                   line.charge, line.kind, line.description, line.quantity, line.exact_amount, line.amount
              FROM {_WANTED}
              JOIN invoice_final AS invoice USING (tenant_id, subscription_id)
              JOIN invoice_line AS line ON line.tenant_id = invoice.tenant_id AND line.invoice_id = invoice.id
             UNION ALL
            SELECT draft.subscription_id, COALESCE(line.period_from, draft.period_from),
                   line.charge, line.kind, line.description, line.quantity, line.exact_amount, line.amount
              FROM {_WANTED}
              JOIN invoice_draft AS draft USING (tenant_id, subscription_id)
             CROSS JOIN LATERAL jsonb_to_recordset(draft.lines) AS line ({LINE_TYPES})) AS booked
     GROUP BY subscription_id, period_from, charge, kind
    """  # noqa: S608 - constant parts
)

BookedKey = tuple[UUID, datetime]


class BilledPeriod(NamedTuple):
    tenant_id: UUID
    subscription_id: UUID
    period_from: datetime
    period_to: datetime


async def changed_periods(
    session: AsyncSession, subscriptions: Iterable[Subscription], read_at: datetime | None = None
) -> list[BilledPeriod]:
    """Billed or skipped periods whose usage may have changed since it was last looked at, before `read_at`.

    They are locked until the caller commits.
    """
    rows = await session.execute(
        _CHANGED, {**_wanted((each.tenant_id, each.id) for each in subscriptions), "read_at": read_at}
    )
    return [BilledPeriod(*row) for row in rows]


async def mark_seen(session: AsyncSession, subscriptions: Iterable[Subscription], read_at: datetime) -> None:
    """Note that all billed periods of `subscriptions` hold their usage at a cut that was read at `read_at`."""
    await session.execute(_SEEN, {**_wanted((each.tenant_id, each.id) for each in subscriptions), "read_at": read_at})


async def booked(
    session: AsyncSession, periods: Sequence[BilledPeriod]
) -> Mapping[BookedKey, Mapping[LineKey, Booked]]:
    """What has been billed for the periods, by subscription and start, and by line."""
    wanted = _wanted({(each.tenant_id, each.subscription_id) for each in periods})
    del wanted["kind"]
    found: dict[BookedKey, dict[LineKey, Booked]] = {}
    for row in await session.execute(_BOOKED, wanted):
        lines = found.setdefault((row.subscription_id, row.period_from), {})
        lines[row.charge, LineKind(row.kind)] = Booked(row.description, row.quantity, row.exact_amount, row.amount)
    return found


def _wanted(keys: Iterable[tuple[UUID, UUID]]) -> dict[str, object]:
    listed = list(keys)
    return {
        "tenant_ids": [key[0] for key in listed],
        "subscription_ids": [key[1] for key in listed],
        "kind": PERIOD_INVOICE,
    }
