"""Use cases of tiers. The caller opens the transaction and commits it."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import insert
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncSession

from tenant_service import audit
from tenant_service.audit import Actor
from tenant_service.models import TierRow, TierVersionRow
from tenant_service.publication import publish_tier
from tenant_service.tiers import repository
from tenant_service.tiers.repository import tier_document
from tenantry import Isolation, StaleVersion, Tier


@dataclass(frozen=True, slots=True)
class TierContent:
    """What a tier says."""

    max_event_age_seconds: int | None
    limits: Mapping[str, Any]
    entitlements: Mapping[str, Any]
    isolation: Isolation


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
    values = {
        "max_event_age_seconds": content.max_event_age_seconds,
        "limits": dict(content.limits),
        "entitlements": dict(content.entitlements),
        "isolation": content.isolation,
    }
    # Insert first: whoever comes second waits for the first one's commit and then finds a row to lock.
    version_zero = {"name": name, "version": 0, "published": False, "updated_at": now, **values}
    inserted = upsert(TierRow).values(version_zero).on_conflict_do_nothing().returning(TierRow.name)
    created = (await session.execute(inserted)).scalar_one_or_none() is not None
    row = await repository.find_tier(session, name, lock=True)
    if expected_version is not None and expected_version != row.version:
        raise StaleVersion(f"The present version is {row.version}")
    if not created and all(getattr(row, column) == value for column, value in values.items()):
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


async def publish_unpublished_tiers(session: AsyncSession) -> int:
    """Tell the other services of tiers that a migration has written. May be repeated; returns how many there were."""
    rows = await repository.lock_unpublished(session)
    for row in rows:
        await publish_tier(session, tier_document(row))
        row.published = True
    return len(rows)
