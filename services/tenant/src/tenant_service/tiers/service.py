"""Use cases of tiers. The caller opens the transaction and commits it."""

from datetime import datetime

from sqlalchemy import insert
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncSession

from tenant_service import audit
from tenant_service.audit import Actor
from tenant_service.domain.tiers import TierContent
from tenant_service.models import TierRow, TierVersionRow
from tenant_service.publication import publish_tier
from tenant_service.tiers import repository
from tenant_service.tiers.repository import content_of, tier_document
from tenantry import StaleVersion, Tier
from tenantry.config import differences


async def put_tier(
    session: AsyncSession,
    name: str,
    content: TierContent,
    *,
    expected_version: int | None,
    actor: Actor,
    now: datetime,
) -> tuple[Tier, bool]:
    """Make `content` the present version of the tier, and say whether the tier is new.

    A new version is written and published only where something differs, so repeating changes nothing.
    Raises `StaleVersion`.
    """
    values = content.document()
    # Insert first: whoever comes second waits for the first one's commit and then finds a row to lock.
    version_zero = {"name": name, "version": 0, "published": False, "updated_at": now, **values}
    inserted = upsert(TierRow).values(version_zero).on_conflict_do_nothing().returning(TierRow.name)
    created = (await session.execute(inserted)).scalar_one_or_none() is not None
    row = await repository.find_tier(session, name, lock=True)
    if expected_version is not None and expected_version != row.version:
        raise StaleVersion(f"The present version is {row.version}")
    if not created and not differences(content_of(row).document(), values):
        return tier_document(row), False
    for column, value in values.items():
        setattr(row, column, value)
    row.version += 1
    row.published, row.updated_at = True, now
    await session.flush()
    version = {"name": name, "version": row.version, "created_at": now, "created_by": actor.subject, **values}
    await session.execute(insert(TierVersionRow), [version])
    await publish_tier(session, tier_document(row))
    await audit.record(
        session, actor, "tier.put", target=f"tier/{name}", now=now, detail={"version": row.version, **values}
    )
    return tier_document(row), created


async def roll_back_tier(
    session: AsyncSession,
    name: str,
    version: int,
    *,
    expected_version: int | None,
    actor: Actor,
    now: datetime,
) -> Tier:
    """Make what an old version said the present version: a new one, where it differs. May be repeated.

    Raises `NotFound` and `StaleVersion`.
    """
    old = content_of(await repository.find_version(session, name, version))
    tier, _ = await put_tier(session, name, old, expected_version=expected_version, actor=actor, now=now)
    return tier


async def publish_unpublished_tiers(session: AsyncSession) -> int:
    """Tell the other services of tiers that a migration has written. May be repeated; returns how many there were."""
    rows = await repository.lock_unpublished(session)
    for row in rows:
        await publish_tier(session, tier_document(row))
        row.published = True
    return len(rows)
