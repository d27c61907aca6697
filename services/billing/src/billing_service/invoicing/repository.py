"""SQL of drafts, numbers and final invoices. Nothing here commits."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final
from uuid import UUID

import msgspec
from sqlalchemy import Row, text
from sqlalchemy.ext.asyncio import AsyncSession

from billing_service.invoicing.models import Draft, Invoice, StoredLine
from billing_service.subscriptions.models import Subscription

# The primary key is what makes it one invoice per (subscription, period, kind): who inserts the row, bills.
_CLAIM_PERIODS: Final = text(
    """
    INSERT INTO billed_period (tenant_id, subscription_id, period_from, kind, period_to, run_id, invoice_id, skipped,
                               usage_seen_at)
    SELECT tenant_id, subscription_id, period_from, :kind, period_to, :run_id, invoice_id, skipped, :usage_seen_at
      FROM unnest(CAST(:tenant_ids AS uuid[]), CAST(:subscription_ids AS uuid[]), CAST(:starts AS timestamptz[]),
                  CAST(:ends AS timestamptz[]), CAST(:invoice_ids AS uuid[]), CAST(:skips AS text[]))
           AS billed (tenant_id, subscription_id, period_from, period_to, invoice_id, skipped)
     ORDER BY tenant_id, subscription_id, period_from
        ON CONFLICT DO NOTHING
    RETURNING subscription_id, period_from
    """
)

# One short step that holds the sellers' rows: every draft of the run gets its number, in the order of periods and then
# of accounts, so that the same books give the same numbers.
_NUMBER: Final = text(
    """
    WITH draft AS (
        SELECT tenant_id, id, seller_code,
               row_number() OVER (
                   PARTITION BY seller_code ORDER BY period_to, account, plan_code, tenant_id, subscription_id
               ) AS position
          FROM invoice_draft WHERE run_id = :run_id AND sequence IS NULL
    ), series AS (
        UPDATE system.seller SET next_number = seller.next_number + needed.numbers
          FROM (SELECT seller_code, count(*) AS numbers FROM draft GROUP BY seller_code) AS needed
         WHERE seller.code = needed.seller_code
        RETURNING seller.code, seller.number_prefix, seller.next_number - needed.numbers AS first
    ), given AS (
        INSERT INTO system.invoice_number (seller_code, sequence, tenant_id, invoice_id)
        SELECT draft.seller_code, series.first + draft.position - 1, draft.tenant_id, draft.id
          FROM draft JOIN series ON series.code = draft.seller_code
        RETURNING seller_code, sequence, tenant_id, invoice_id
    )
    UPDATE invoice_draft
       SET sequence = given.sequence,
           number = series.number_prefix
                    || lpad(given.sequence::text, greatest(6, length(given.sequence::text)), '0')
      FROM given JOIN series ON series.code = given.seller_code
     WHERE invoice_draft.tenant_id = given.tenant_id AND invoice_draft.id = given.invoice_id
    """
)

_HEAD: Final = (
    "tenant_id, id, number, seller_code, sequence, run_id, kind, subscription_id, account, plan_code, plan_version, "
    "currency, period_from, period_to, cut_id, total, issued_at"
)
_LINE: Final = (
    "n, charge, kind, description, quantity, unit_amount, exact_amount, amount, formula, inputs, usage_count, "
    "usage_total, usage_rollups, usage_digest, period_from, period_to"
)
LINE_TYPES: Final = (
    "n int, charge text, kind text, description text, quantity numeric, unit_amount numeric, exact_amount numeric, "
    "amount numeric, formula text, inputs jsonb, usage_count numeric, usage_total numeric, usage_rollups bigint, "
    "usage_digest text, period_from timestamptz, period_to timestamptz"
)
"""The columns of a line, for `jsonb_to_recordset` of a draft's."""
_TAKE_DRAFTS: Final = text(
    """
    SELECT tenant_id, id FROM invoice_draft WHERE run_id = :run_id AND sequence IS NOT NULL
     ORDER BY sequence LIMIT :limit FOR UPDATE SKIP LOCKED
    """
)
_TAKEN: Final = (
    "JOIN unnest(CAST(:tenant_ids AS uuid[]), CAST(:ids AS uuid[])) AS taken (tenant_id, id) USING (tenant_id, id)"
)
_FINALIZE: Final = text(
    f"""
    INSERT INTO invoice_final ({_HEAD}) SELECT {_HEAD} FROM invoice_draft {_TAKEN} ORDER BY sequence
    RETURNING {_HEAD}
    """  # noqa: S608 - constant columns
)
_FINALIZE_LINES: Final = text(
    f"""
    INSERT INTO invoice_line (tenant_id, invoice_id, {_LINE})
    SELECT draft.tenant_id, draft.id, {", ".join("line." + name for name in _LINE.split(", "))}
      FROM invoice_draft AS draft {_TAKEN}
     CROSS JOIN LATERAL jsonb_to_recordset(draft.lines) AS line ({LINE_TYPES})
    """  # noqa: S608 - constant columns
)
_DROP_DRAFTS: Final = text(
    """
    DELETE FROM invoice_draft
     USING unnest(CAST(:tenant_ids AS uuid[]), CAST(:ids AS uuid[])) AS taken (tenant_id, id)
     WHERE invoice_draft.tenant_id = taken.tenant_id AND invoice_draft.id = taken.id
    """
)
_HAS_DRAFTS: Final = text("SELECT EXISTS (SELECT FROM invoice_draft WHERE run_id = :run_id)")
_PAGE: Final = text(
    f"""
    SELECT {_HEAD} FROM invoice_final
     WHERE (CAST(:tenant_id AS uuid) IS NULL OR tenant_id = :tenant_id)
       AND (CAST(:before AS uuid) IS NULL OR id < :before)
     ORDER BY id DESC LIMIT :limit
    """  # noqa: S608 - constant columns
)
_FIND: Final = text(f"SELECT {_HEAD} FROM invoice_final WHERE id = :id")  # noqa: S608 - constant columns
_LINES: Final = text(
    f"""
    SELECT {_LINE.replace("inputs", "CAST(inputs AS text) AS inputs")} FROM invoice_line
     WHERE tenant_id = :tenant_id AND invoice_id = :invoice_id ORDER BY n
    """  # noqa: S608 - constant columns
)

_encode_lines = msgspec.json.Encoder(decimal_format="string").encode
_decode_inputs = msgspec.json.Decoder(dict[str, Any]).decode

DRAFT_COLUMNS: Final = (
    "tenant_id",
    "id",
    "run_id",
    "kind",
    "subscription_id",
    "account",
    "seller_code",
    "plan_code",
    "plan_version",
    "currency",
    "period_from",
    "period_to",
    "cut_id",
    "total",
    "issued_at",
    "lines",
)


def draft_record(draft: Draft) -> tuple[object, ...]:
    """A draft in the order of DRAFT_COLUMNS, for COPY."""
    values = {name: getattr(draft, name) for name in DRAFT_COLUMNS}
    return tuple((values | {"lines": _encode_lines(draft.lines).decode()}).values())


async def claim_periods(
    session: AsyncSession,
    run_id: UUID,
    kind: str,
    periods: Sequence[tuple[Subscription, datetime, datetime, UUID | None, str | None]],
    usage_seen_at: datetime,
) -> set[tuple[UUID, datetime]]:
    """Take (subscription, start, end, invoice id, reason to skip) for this run; returns (subscription id, start) of
    those that nobody had billed before. `usage_seen_at` is when their usage was read.
    """
    rows = await session.execute(
        _CLAIM_PERIODS,
        {
            "run_id": run_id,
            "kind": kind,
            "usage_seen_at": usage_seen_at,
            "tenant_ids": [period[0].tenant_id for period in periods],
            "subscription_ids": [period[0].id for period in periods],
            "starts": [period[1] for period in periods],
            "ends": [period[2] for period in periods],
            "invoice_ids": [period[3] for period in periods],
            "skips": [period[4] for period in periods],
        },
    )
    return {(row.subscription_id, row.period_from) for row in rows}


async def number_drafts(session: AsyncSession, run_id: UUID) -> None:
    """Give the drafts of a run their sellers' next numbers, without a gap. Repeatable: numbered drafts stay as they
    are. The sellers' series are locked until the caller commits.
    """
    await session.execute(_NUMBER, {"run_id": run_id})


async def finalize_drafts(session: AsyncSession, run_id: UUID, limit: int) -> list[Invoice]:
    """Turn the next numbered drafts of a run into final invoices; returns their heads, none when all are final."""
    taken = (await session.execute(_TAKE_DRAFTS, {"run_id": run_id, "limit": limit})).all()
    if not taken:
        return []
    keys = {"tenant_ids": [row.tenant_id for row in taken], "ids": [row.id for row in taken]}
    invoices = [Invoice(**row._asdict()) for row in await session.execute(_FINALIZE, keys)]
    await session.execute(_FINALIZE_LINES, keys)
    await session.execute(_DROP_DRAFTS, keys)
    return invoices


async def has_drafts(session: AsyncSession, run_id: UUID) -> bool:
    return bool(await session.scalar(_HAS_DRAFTS, {"run_id": run_id}))


async def page(session: AsyncSession, tenant_id: UUID | None, before: UUID | None, limit: int) -> list[Invoice]:
    """Heads of final invoices, the newest first; of all tenants the session may see where none is given."""
    rows = await session.execute(_PAGE, {"tenant_id": tenant_id, "before": before, "limit": limit})
    return [Invoice(**row._asdict()) for row in rows]


async def find(session: AsyncSession, invoice_id: UUID) -> Invoice | None:
    """A final invoice with its lines."""
    row = (await session.execute(_FIND, {"id": invoice_id})).one_or_none()
    if row is None:
        return None
    lines = await session.execute(_LINES, {"tenant_id": row.tenant_id, "invoice_id": row.id})
    return Invoice(**row._asdict(), lines=[_line(line) for line in lines])


def _line(row: Row[Any]) -> StoredLine:
    return StoredLine(**(row._asdict() | {"inputs": _decode_inputs(row.inputs)}))
