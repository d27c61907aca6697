"""SQL of stores."""

from collections.abc import Collection, Mapping, Sequence

from sqlalchemy import ARRAY, BigInteger, Text, bindparam, func, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from tenant_service.domain.placement import Policy, Store, StoreState
from tenant_service.models import TierRow
from tenant_service.stores.models import StoreRow
from tenantry import Isolation, NotFound


def store_of(row: StoreRow) -> Store:
    """The store as placement sees it."""
    return Store(
        name=row.name,
        region=row.region,
        isolations=frozenset(Isolation(each) for each in row.isolations),
        capacity=row.capacity,
        state=StoreState(row.state),
        tenants=row.tenants,
    )


def policy_of(tier: TierRow) -> Policy:
    """What a tier says of where its tenants may be."""
    return Policy(**{field: tuple(names) for field, names in tier.placement.items()})


async def find_store(session: AsyncSession, name: str, *, lock: bool = False) -> StoreRow:
    """The store of this name as it is now. Raises `NotFound`."""
    row = await session.get(StoreRow, name, with_for_update=lock or None, populate_existing=True)
    if row is None:
        raise NotFound
    return row


async def check_region(session: AsyncSession, region: str) -> None:
    """Raises `NotFound` where there is no store, whatever its state, in the region."""
    found = await session.scalar(select(StoreRow.name).where(StoreRow.region == region).limit(1))
    if found is None:
        raise NotFound(f"There is no store in a region {region!r}")


async def list_stores(session: AsyncSession, *, after: str | None, limit: int) -> Sequence[StoreRow]:
    """At most `limit` stores by name, after `after`."""
    statement = select(StoreRow).order_by(StoreRow.name).limit(limit)
    if after is not None:
        statement = statement.where(StoreRow.name > after)
    return (await session.scalars(statement)).all()


async def all_stores(session: AsyncSession, *, lock: bool = False) -> list[Store]:
    """Every store as it is now, by name.

    With `lock` nobody else changes one before the transaction ends; everyone locks them in this order.
    """
    statement = select(StoreRow).order_by(StoreRow.name).execution_options(populate_existing=True)
    if lock:
        statement = statement.with_for_update(key_share=True)
    return [store_of(row) for row in await session.scalars(statement)]


async def policies_of(session: AsyncSession, tiers: Collection[str]) -> Mapping[str, Policy]:
    """The placement policies of these tiers by name."""
    rows = await session.scalars(select(TierRow).where(TierRow.name.in_(tiers)))
    return {row.name: policy_of(row) for row in rows}


async def count_tenants(session: AsyncSession, changes: Mapping[str, int]) -> None:
    """Add to the numbers of tenants of these stores: one statement. The caller has them locked, or changes one only."""
    if changes:
        await session.execute(_COUNT, {"names": list(changes), "changes": list(changes.values())})


_changes = (
    func.unnest(bindparam("names", type_=ARRAY(Text)), bindparam("changes", type_=ARRAY(BigInteger)))
    .table_valued("name", "change")
    .render_derived()
)
_COUNT = (
    update(StoreRow)
    .where(StoreRow.name == _changes.c.name)
    .values(tenants=StoreRow.tenants + _changes.c.change)
    .execution_options(synchronize_session=False)
)
