"""SQL of runs and of the periods they plan. Nothing here commits."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Row, text
from sqlalchemy.ext.asyncio import AsyncSession

from billing_service.domain.periods import Period
from billing_service.domain.runs import OPEN_STATES, ItemState, RunState, may_follow
from billing_service.invoicing.models import Item, Outcome, Run

CHANNEL: Final = "invoice_run"

_COLUMNS: Final = (
    "id, as_of, tenants, dry_run, grace_seconds, state, cut_id, error, requested_by, created_at, cut_requested_at, "
    "finished_at"
)
_INSERT: Final = text(
    """
    INSERT INTO system.invoice_run (id, as_of, tenants, dry_run, grace_seconds, state, requested_by, created_at)
    VALUES (:id, :as_of, CAST(:tenants AS uuid[]), :dry_run, :grace_seconds, :state, :requested_by, :created_at)
    """
)
_NOTIFY: Final = text(f"SELECT pg_notify('{CHANNEL}', '')")
_FIND: Final = text(f"SELECT {_COLUMNS} FROM system.invoice_run WHERE id = :id")  # noqa: S608 - constant columns
_PAGE: Final = text(
    f"""
    SELECT {_COLUMNS} FROM system.invoice_run WHERE CAST(:before AS uuid) IS NULL OR id < :before
     ORDER BY id DESC LIMIT :limit
    """  # noqa: S608 - constant columns
)
_OPEN: Final = text(
    f"SELECT {_COLUMNS} FROM system.invoice_run WHERE state = ANY(:states) ORDER BY created_at, id"  # noqa: S608 - constant columns
)
_MOVE: Final = text(
    """
    UPDATE system.invoice_run
       SET state = :following, error = :error,
           finished_at = CASE WHEN :finished THEN clock_timestamp() ELSE finished_at END
     WHERE id = :id AND state = :current
    """
)
_SET_ERROR: Final = text("UPDATE system.invoice_run SET error = :error WHERE id = :id")
_SET_CUT: Final = text(
    """
    UPDATE system.invoice_run
       SET cut_id = :cut_id, cut_requested_at = COALESCE(cut_requested_at, clock_timestamp()), error = NULL
     WHERE id = :id AND state = 'cutting'
    """
)
_CLEAR_ITEMS: Final = text("DELETE FROM system.invoice_run_item WHERE run_id = :run_id")
_INSERT_ITEMS: Final = text(
    """
    INSERT INTO system.invoice_run_item (run_id, n, tenant_id, subscription_id, period_from, period_to,
                                         days_used, days_whole, billed_at, state)
    SELECT :run_id, n, tenant_id, subscription_id, period_from, period_to, days_used, days_whole, billed_at, 'pending'
      FROM unnest(CAST(:numbers AS int[]), CAST(:tenant_ids AS uuid[]), CAST(:subscription_ids AS uuid[]),
                  CAST(:starts AS timestamptz[]), CAST(:ends AS timestamptz[]), CAST(:used AS int[]),
                  CAST(:whole AS int[]), CAST(:billed_ats AS timestamptz[]))
           AS item (n, tenant_id, subscription_id, period_from, period_to, days_used, days_whole, billed_at)
    """
)
_CLAIM: Final = text(
    """
    SELECT n, tenant_id, subscription_id, period_from, period_to, days_used, days_whole, billed_at
      FROM system.invoice_run_item WHERE run_id = :run_id AND state = 'pending'
     ORDER BY n LIMIT :limit FOR UPDATE SKIP LOCKED
    """
)
_RATED: Final = text(
    """
    SELECT DISTINCT subscription_id FROM system.invoice_run_item
     WHERE run_id = :run_id AND state = 'rated' AND subscription_id = ANY(CAST(:subscription_ids AS uuid[]))
    """
)
_SETTLE: Final = text(
    """
    UPDATE system.invoice_run_item AS item
       SET state = settled.state, invoice_id = settled.invoice_id, currency = settled.currency,
           total = settled.total, reason = settled.reason
      FROM unnest(CAST(:numbers AS int[]), CAST(:states AS text[]), CAST(:invoice_ids AS uuid[]),
                  CAST(:currencies AS text[]), CAST(:totals AS numeric[]), CAST(:reasons AS text[]))
           AS settled (n, state, invoice_id, currency, total, reason)
     WHERE item.run_id = :run_id AND item.n = settled.n
    """
)
_INVOICED: Final = text(
    """
    UPDATE system.invoice_run_item SET state = 'invoiced'
     WHERE run_id = :run_id AND state = 'drafted' AND invoice_id = ANY(CAST(:invoice_ids AS uuid[]))
    """
)
_PENDING: Final = text(
    "SELECT EXISTS (SELECT FROM system.invoice_run_item WHERE run_id = :run_id AND state = 'pending')"
)
_PROGRESS: Final = text(
    "SELECT state, count(*) AS periods FROM system.invoice_run_item WHERE run_id = :run_id GROUP BY state"
)
_TOTALS: Final = text(
    """
    SELECT currency, sum(total) AS total FROM system.invoice_run_item
     WHERE run_id = :run_id AND state IN ('drafted', 'invoiced', 'rated') GROUP BY currency ORDER BY currency
    """
)
_ITEMS: Final = text(
    """
    SELECT n, tenant_id, subscription_id, period_from, period_to, state, invoice_id, currency, total, reason
      FROM system.invoice_run_item WHERE run_id = :run_id AND n > :after ORDER BY n LIMIT :limit
    """
)


def _run(row: Row[Any]) -> Run:
    values = row._asdict()
    values["tenants"] = None if row.tenants is None else tuple(row.tenants)
    values["state"] = RunState(row.state)
    return Run(**values)


async def insert(session: AsyncSession, run: Run) -> None:
    """Store a new run and wake the workers when the caller commits."""
    await session.execute(
        _INSERT,
        {
            "id": run.id,
            "as_of": run.as_of,
            "tenants": None if run.tenants is None else list(run.tenants),
            "dry_run": run.dry_run,
            "grace_seconds": run.grace_seconds,
            "state": run.state.value,
            "requested_by": run.requested_by,
            "created_at": run.created_at,
        },
    )
    await session.execute(_NOTIFY)


async def find(session: AsyncSession, run_id: UUID) -> Run | None:
    row = (await session.execute(_FIND, {"id": run_id})).one_or_none()
    return None if row is None else _run(row)


async def page(session: AsyncSession, before: UUID | None, limit: int) -> list[Run]:
    """Runs, the newest first."""
    return [_run(row) for row in await session.execute(_PAGE, {"before": before, "limit": limit})]


async def open_runs(session: AsyncSession) -> list[Run]:
    """Runs that are not over, the oldest first."""
    return [_run(row) for row in await session.execute(_OPEN, {"states": [state.value for state in OPEN_STATES]})]


async def move(session: AsyncSession, run: Run, following: RunState, error: str | None = None) -> bool:
    """Move `run` to its next state; False where it has left `run.state` meanwhile. Raises ValueError for a way that
    the transition table does not have.
    """
    if not may_follow(run.state, following):
        raise ValueError(f"a run cannot go from {run.state} to {following}")
    moved = await session.execute(
        _MOVE,
        {
            "id": run.id,
            "current": run.state.value,
            "following": following.value,
            "error": error,
            "finished": following not in OPEN_STATES,
        },
    )
    return _changed(moved) == 1


async def set_error(session: AsyncSession, run_id: UUID, error: str) -> None:
    """Show why a run does not get on; it goes on trying."""
    await session.execute(_SET_ERROR, {"id": run_id, "error": error})


async def set_cut(session: AsyncSession, run_id: UUID, cut_id: UUID | None) -> None:
    await session.execute(_SET_CUT, {"id": run_id, "cut_id": cut_id})


async def replace_items(session: AsyncSession, run_id: UUID, items: Sequence[Item]) -> None:
    """Write the plan of a run anew: a worker that died while planning leaves nothing behind."""
    await session.execute(_CLEAR_ITEMS, {"run_id": run_id})
    await session.execute(
        _INSERT_ITEMS,
        {
            "run_id": run_id,
            "numbers": [item.n for item in items],
            "tenant_ids": [item.tenant_id for item in items],
            "subscription_ids": [item.subscription_id for item in items],
            "starts": [item.period.start for item in items],
            "ends": [item.period.end for item in items],
            "used": [item.period.days_used for item in items],
            "whole": [item.period.days_whole for item in items],
            "billed_ats": [item.billed_at for item in items],
        },
    )


async def claim_items(session: AsyncSession, run_id: UUID, limit: int) -> list[Item]:
    """Lock the next pending items; those that another worker holds are left to it."""
    rows = await session.execute(_CLAIM, {"run_id": run_id, "limit": limit})
    return [
        Item(
            n=row.n,
            tenant_id=row.tenant_id,
            subscription_id=row.subscription_id,
            period=Period(row.period_from, row.period_to, row.days_used, row.days_whole),
            billed_at=row.billed_at,
        )
        for row in rows
    ]


async def rated_before(session: AsyncSession, run_id: UUID, subscription_ids: Iterable[UUID]) -> set[UUID]:
    """Those of the subscriptions of which a dry run has rated a period already."""
    return set(await session.scalars(_RATED, {"run_id": run_id, "subscription_ids": list(subscription_ids)}))


async def settle_items(session: AsyncSession, run_id: UUID, outcomes: Sequence[Outcome]) -> None:
    await session.execute(
        _SETTLE,
        {
            "run_id": run_id,
            "numbers": [outcome.n for outcome in outcomes],
            "states": [outcome.state.value for outcome in outcomes],
            "invoice_ids": [outcome.invoice_id for outcome in outcomes],
            "currencies": [outcome.currency for outcome in outcomes],
            "totals": [outcome.total for outcome in outcomes],
            "reasons": [outcome.reason for outcome in outcomes],
        },
    )


async def mark_invoiced(session: AsyncSession, run_id: UUID, invoice_ids: Sequence[UUID]) -> None:
    await session.execute(_INVOICED, {"run_id": run_id, "invoice_ids": list(invoice_ids)})


async def has_pending(session: AsyncSession, run_id: UUID) -> bool:
    return bool(await session.scalar(_PENDING, {"run_id": run_id}))


async def progress(session: AsyncSession, run_id: UUID) -> Mapping[ItemState, int]:
    rows = await session.execute(_PROGRESS, {"run_id": run_id})
    return {ItemState(row.state): row.periods for row in rows}


async def totals(session: AsyncSession, run_id: UUID) -> list[tuple[str, Any]]:
    """(currency, sum of what was invoiced or, in a dry run, rated)."""
    return [(row.currency, row.total) for row in await session.execute(_TOTALS, {"run_id": run_id})]


async def items_page(session: AsyncSession, run_id: UUID, after: int, limit: int) -> list[Row[Any]]:
    rows = await session.execute(_ITEMS, {"run_id": run_id, "after": after, "limit": limit})
    return list(rows.all())


def _changed(result: Any) -> int:
    """SQLAlchemy types the result of an UPDATE as a Result without rowcount."""
    count: int = result.rowcount
    return count
