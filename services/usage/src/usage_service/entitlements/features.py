"""Rows of features, and of what tenants have of those that are not metered."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Final, cast
from uuid import UUID

from sqlalchemy import CursorResult, Row, bindparam, text
from sqlalchemy.dialects.postgresql import JSONB

from usage_service.domain.entitlements import FeatureKind
from usage_service.entitlements.repository import WANTED, Held, Session, named

_FEATURE: Final = text("SELECT slug, kind, meter FROM system.feature WHERE slug = :slug")
_FEATURES: Final = text("SELECT slug, kind, meter FROM system.feature WHERE slug > :after ORDER BY slug LIMIT :limit")
_FEATURES_NAMED: Final = text("SELECT slug, kind, meter FROM system.feature WHERE slug = ANY(CAST(:slugs AS text[]))")
_ADD_FEATURE: Final = text(
    """
    INSERT INTO system.feature (slug, kind, meter, created_at) VALUES (:slug, :kind, :meter, clock_timestamp())
    ON CONFLICT (slug) DO NOTHING
    """
)
_ACCESSES: Final = text(
    f"""
    SELECT tenant_id, feature, enabled, config, version FROM feature_access WHERE (tenant_id, feature) IN ({WANTED})
    """  # noqa: S608
)
_PUT_ACCESS: Final = text(
    """
    INSERT INTO feature_access AS known (tenant_id, feature, enabled, config, version)
    VALUES (:tenant, :feature, :enabled, :config, 1)
    ON CONFLICT (tenant_id, feature) DO UPDATE SET
           enabled = excluded.enabled, config = excluded.config, version = known.version + 1
    RETURNING version
    """
).bindparams(bindparam("config", type_=JSONB(none_as_null=True)))
_DELETE_ACCESS: Final = text("DELETE FROM feature_access WHERE tenant_id = :tenant AND feature = :feature")


@dataclass(frozen=True, slots=True)
class Feature:
    slug: str
    kind: FeatureKind
    meter: str | None


@dataclass(frozen=True, slots=True)
class Access:
    feature: str
    enabled: bool
    config: Any
    version: int


async def find_feature(session: Session, slug: str) -> Feature | None:
    row = (await session.execute(_FEATURE, {"slug": slug})).one_or_none()
    return None if row is None else _feature(row)


async def find_features_named(session: Session, slugs: Collection[str]) -> dict[str, Feature]:
    if not slugs:
        return {}
    return {row.slug: _feature(row) for row in await session.execute(_FEATURES_NAMED, {"slugs": list(slugs)})}


async def find_features(session: Session, *, after: str, limit: int) -> list[Feature]:
    """A page of features by name."""
    return [_feature(row) for row in await session.execute(_FEATURES, {"after": after, "limit": limit})]


async def add_feature(session: Session, feature: Feature) -> None:
    """Adds a feature where there is none of its name."""
    await session.execute(_ADD_FEATURE, {"slug": feature.slug, "kind": feature.kind, "meter": feature.meter})


async def find_accesses(session: Session, wanted: Collection[Held]) -> dict[Held, Access]:
    """What tenants have of features that are not metered, where they have anything."""
    if not wanted:
        return {}
    rows = await session.execute(_ACCESSES, named(wanted))
    return {(row.tenant_id, row.feature): Access(row.feature, row.enabled, row.config, row.version) for row in rows}


async def put_access(session: Session, tenant_id: UUID, access: Access) -> int:
    """Stores what a tenant has of a feature; returns its version."""
    parameters = {
        "tenant": tenant_id,
        "feature": access.feature,
        "enabled": access.enabled,
        "config": access.config,
    }
    version: int = (await session.execute(_PUT_ACCESS, parameters)).scalar_one()
    return version


async def delete_access(session: Session, tenant_id: UUID, feature: str) -> bool:
    """Takes back what was put for a tenant of a feature; returns whether anything was."""
    deleted = await session.execute(_DELETE_ACCESS, {"tenant": tenant_id, "feature": feature})
    return cast("CursorResult[Any]", deleted).rowcount > 0


def _feature(row: Row[Any]) -> Feature:
    return Feature(row.slug, FeatureKind(row.kind), row.meter)
