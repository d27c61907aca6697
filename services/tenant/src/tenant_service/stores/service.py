"""Use cases of stores. The caller opens the transaction and commits it."""

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import func, select, text
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncSession

from tenant_service import audit
from tenant_service.audit import Actor
from tenant_service.domain.placement import NoStore, Policy, StoreState, Wish, choose_stores
from tenant_service.models import TenantRow
from tenant_service.publication import publish_store
from tenant_service.stores import repository
from tenant_service.stores.models import StoreRow
from tenant_service.stores.schemas import StoreCreate
from tenantry import Conflict, Isolation, StaleVersion, Store


class StoreExists(Conflict):
    """The name is another store's."""

    type = "store-exists"
    title = "There is a store of this name"


class StoreNotEmpty(Conflict):
    """Tenants live in a store that is to be closed."""

    type = "store-not-empty"
    title = "Tenants live in the store"


async def create_store(session: AsyncSession, wanted: StoreCreate, *, actor: Actor, now: datetime) -> StoreRow:
    """Register a store; tenants may be placed there from now on. Raises `StoreExists`."""
    values = {
        "region": wanted.region,
        "capacity": wanted.capacity,
        "isolations": [each.value for each in wanted.isolations],
        "state": wanted.state.value,
    }
    if not await _add(session, {"name": wanted.name, "tenants": 0, **values}, now):
        raise StoreExists(f"There is a store {wanted.name!r}")
    await audit.record(session, actor, "store.create", target=f"store/{wanted.name}", now=now, detail=values)
    return await repository.find_store(session, wanted.name)


async def update_store(
    session: AsyncSession,
    name: str,
    changes: Mapping[str, Any],
    *,
    expected_version: int | None,
    actor: Actor,
    now: datetime,
) -> StoreRow:
    """Change the capacity, the isolations on offer or the state; nothing is written where nothing differs.

    Raises `NotFound`, `StaleVersion`, and `StoreNotEmpty` where a store that has tenants is to be closed.
    """
    row = await repository.find_store(session, name, lock=True)
    if expected_version is not None and expected_version != row.version:
        raise StaleVersion(f"The present version is {row.version}")
    changed = {field: value for field, value in changes.items() if getattr(row, field) != value}
    if not changed:
        return row
    if changed.get("state") == StoreState.CLOSED and row.tenants:
        raise StoreNotEmpty(f"{row.tenants} tenants live there; drain the store and move them first")
    before = {field: getattr(row, field) for field in changed}
    for field, value in changed.items():
        setattr(row, field, value)
    row.version += 1
    row.updated_at = now
    await session.flush()
    await publish_store(session, _document(row))
    await audit.record(
        session,
        actor,
        "store.update",
        target=f"store/{name}",
        now=now,
        detail={"before": before, "after": changed},
    )
    return row


async def ensure_default_store(session: AsyncSession, name: str, region: str, *, now: datetime) -> bool:
    """Make the store of a deployment that has none, open for everything; returns whether it was made. May be repeated.

    Tenants that were placed before there were stores are counted, whatever their store was called.
    """
    if await session.scalar(select(StoreRow.name).limit(1)) is not None:
        return False
    # Against another process that starts, and against the placements of one that does not count yet.
    await session.execute(text("LOCK TABLE system.store, system.tenant IN SHARE ROW EXCLUSIVE MODE"))
    if await session.scalar(select(StoreRow.name).limit(1)) is not None:
        return False
    placed = select(TenantRow.store, func.count()).where(TenantRow.store.is_not(None)).group_by(TenantRow.store)
    counts: dict[str, int] = {name: 0}
    counts.update((store, count) for store, count in await session.execute(placed) if store is not None)
    for store, tenants in counts.items():
        offered = {"capacity": None, "isolations": [each.value for each in Isolation], "state": StoreState.OPEN.value}
        await _add(session, {"name": store, "region": region, "tenants": tenants, **offered}, now)
    return True


async def occupy_stores(session: AsyncSession, tenants: Sequence[TenantRow]) -> list[str | NoStore]:
    """A place in a store, or why there is none, for each of these tenants, which have none: three statements in all.

    The places are counted in this transaction, and the stores stay locked until it ends: however many choose at once,
    no store takes more tenants than it has room for.
    """
    if not tenants:
        return []
    policies = await repository.policies_of(session, {row.tier for row in tenants})
    wishes = [Wish(row.isolation, row.region, policies.get(row.tier, Policy())) for row in tenants]
    chosen = choose_stores(await repository.all_stores(session, lock=True), wishes)
    await repository.count_tenants(session, Counter(name for name in chosen if isinstance(name, str)))
    return chosen


async def leave_stores(session: AsyncSession, names: Sequence[str]) -> None:
    """Give back the places of tenants that live in these stores no more; a name for each tenant. Commits nothing."""
    if not names:
        return
    await repository.all_stores(session, lock=True)
    await repository.count_tenants(session, {name: -count for name, count in Counter(names).items()})


async def _add(session: AsyncSession, values: Mapping[str, Any], now: datetime) -> bool:
    """Insert and publish a store; False where its name is taken."""
    row = {**values, "version": 1, "created_at": now, "updated_at": now}
    added = await session.scalar(upsert(StoreRow).values(row).on_conflict_do_nothing().returning(StoreRow.name))
    if added is None:
        return False
    await publish_store(session, Store(name=row["name"], region=row["region"], version=1))
    return True


def _document(row: StoreRow) -> Store:
    return Store(name=row.name, region=row.region, version=row.version)
