"""SQL of tiers."""

from collections.abc import Collection, Sequence

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from tenant_service.domain.tiers import TierContent
from tenant_service.models import TierRow, TierVersionRow
from tenantry import InvalidRequest, NotFound, Tier


class UnknownTier(InvalidRequest):
    """The body names a tier that does not exist."""

    type = "unknown-tier"
    title = "There is no such tier"

    def __init__(self, name: str, *, loc: Sequence[str] = ("body", "tier")) -> None:
        detail = f"There is no tier {name!r}"
        super().__init__(detail, errors=[{"loc": [*loc], "msg": detail}])


def tier_document(row: TierRow | TierVersionRow) -> Tier:
    """The tier as the other services see it: the value of `platform.state.v1`, key `tier/<name>`."""
    return Tier(
        name=row.name,
        version=row.version,
        max_event_age_seconds=row.max_event_age_seconds,
        limits=row.limits,
        entitlements=row.entitlements,
        isolation=row.isolation,
        placement=row.placement,
        constraints=row.constraints,
    )


def content_of(row: TierRow | TierVersionRow) -> TierContent:
    """What this version of the tier says."""
    return TierContent(
        max_event_age_seconds=row.max_event_age_seconds,
        limits=row.limits,
        entitlements=row.entitlements,
        isolation=row.isolation,
        placement=row.placement,
        constraints=row.constraints,
    )


async def known_tiers(session: AsyncSession, names: Collection[str]) -> set[str]:
    """Those of `names` that are tiers."""
    return set(await session.scalars(select(TierRow.name).where(TierRow.name.in_(names)))) if names else set()


async def tier_of(session: AsyncSession, name: str) -> TierRow:
    """The tier that a tenant is to be on. Raises `UnknownTier`."""
    row = await session.get(TierRow, name)
    if row is None:
        raise UnknownTier(name)
    return row


async def find_tier(session: AsyncSession, name: str, *, lock: bool = False) -> TierRow:
    """The present version of a tier. Raises `NotFound`."""
    row = await session.get(TierRow, name, with_for_update=lock or None)
    if row is None:
        raise NotFound(f"There is no tier {name!r}")
    return row


async def list_tiers(session: AsyncSession, *, after: str | None, limit: int) -> Sequence[TierRow]:
    """At most `limit` tiers by name, after `after`."""
    statement = select(TierRow).order_by(TierRow.name).limit(limit)
    if after is not None:
        statement = statement.where(TierRow.name > after)
    return (await session.scalars(statement)).all()


async def list_versions(
    session: AsyncSession, name: str, *, before: int | None, limit: int
) -> Sequence[TierVersionRow]:
    """At most `limit` versions of a tier, the newest first."""
    statement = select(TierVersionRow).where(TierVersionRow.name == name)
    if before is not None:
        statement = statement.where(TierVersionRow.version < before)
    return (await session.scalars(statement.order_by(TierVersionRow.version.desc()).limit(limit))).all()


async def find_version(session: AsyncSession, name: str, version: int) -> TierVersionRow:
    """A version of a tier. Raises `NotFound`."""
    row = await session.get(TierVersionRow, (name, version))
    if row is None:
        raise NotFound(f"The tier has no version {version}")
    return row


async def lock_unpublished(session: AsyncSession) -> Sequence[TierRow]:
    """The tiers that the other services have not been told of, locked."""
    statement = select(TierRow).where(TierRow.published.is_(False)).order_by(TierRow.name).with_for_update()
    return (await session.scalars(statement)).all()
