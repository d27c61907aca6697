"""What should be on the state topics: one kind of document a table, its versions and how it is published."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

import msgspec
from sqlalchemy import select, tuple_
from sqlalchemy.ext.asyncio import AsyncSession

from tenant_service.config.models import ConfigLayerRow, ConfigSchemaRow
from tenant_service.config.repository import layer_document, schema_document
from tenant_service.config.secrets import published
from tenant_service.features.models import FlagRow
from tenant_service.features.repository import flag_document
from tenant_service.identity import api_keys
from tenant_service.identity.signing_keys import load_jwks
from tenant_service.models import ApiKeyRow, KeySetRow, SessionRow, TenantRow, TestClockRow, TierRow
from tenant_service.publication import (
    CREDENTIALS,
    PLATFORM_STATE,
    TENANT_CONFIG,
    TENANT_STATE,
    publish_credential,
    publish_flag,
    publish_key_set,
    publish_layer,
    publish_revocation,
    publish_schema,
    publish_store,
    publish_tenants,
    publish_tier,
)
from tenant_service.revocations.models import TokenRevocationRow
from tenant_service.revocations.service import revocation_document
from tenant_service.sessions import service as sessions
from tenant_service.stores.models import StoreRow
from tenant_service.support import service as support
from tenant_service.support.models import SupportGrantRow
from tenant_service.tenants.document import document
from tenant_service.tiers.repository import tier_document
from tenantry import Store, TenantClock, TenantStatus
from tenantry.config import Layer, layer_key
from tenantry.identity import REVOCATION_PREFIX

Versions = Callable[[AsyncSession, datetime], Awaitable[dict[str, int]]]
Publish = Callable[[AsyncSession, Sequence[str], datetime], Awaitable[set[str]]]


@dataclass(frozen=True, slots=True)
class Documents:
    """One kind of document.

    `versions` gives those that should be on the topic, by key. `publish` publishes those of some keys and returns which
    of them there are; it locks their rows first, so that a change that is under way is published after it: the order of
    versions is the order of the topic, and a compacted topic keeps the last record, not the greatest version.
    """

    topic: str
    type: str
    prefix: str
    """What its keys begin with, on a topic of several kinds."""
    versions: Versions
    publish: Publish


async def _tenant_versions(session: AsyncSession, _: datetime) -> dict[str, int]:
    found = select(TenantRow.id, TenantRow.version).where(TenantRow.status != TenantStatus.PURGED)
    return {str(tenant_id): version for tenant_id, version in await session.execute(found)}


async def _publish_tenants(session: AsyncSession, keys: Sequence[str], _: datetime) -> set[str]:
    wanted = TenantRow.id.in_([UUID(key) for key in keys])
    await session.execute(select(TenantRow.id).where(wanted).order_by(TenantRow.id).with_for_update())
    rows = await session.execute(
        select(TenantRow, TestClockRow)
        .outerjoin(TestClockRow, TestClockRow.id == TenantRow.test_clock_id)
        .where(wanted, TenantRow.status != TenantStatus.PURGED)
    )
    tenants = [document(row, _bound_to(clock)) for row, clock in rows]
    await publish_tenants(session, tenants)
    return {str(tenant.id) for tenant in tenants}


def _bound_to(clock: TestClockRow | None) -> TenantClock | None:
    return None if clock is None else TenantClock(id=clock.id, now=clock.now)


_CREDENTIALS: Final[Sequence[tuple[Any, Any]]] = (
    (ApiKeyRow, api_keys.standing_credentials),
    (SessionRow, sessions.standing_credentials),
    (SupportGrantRow, support.standing_credentials),
)


async def _credential_versions(session: AsyncSession, _: datetime) -> dict[str, int]:
    versions = {}
    for row, standing in _CREDENTIALS:
        there = {credential.id for credential in await standing(session)}
        found = await session.execute(select(row.id, row.version))
        versions.update({str(each): version for each, version in found if str(each) in there})
    revoked = select(TokenRevocationRow.id, TokenRevocationRow.version)
    versions.update({f"{REVOCATION_PREFIX}{each}": version for each, version in await session.execute(revoked)})
    return versions


async def _publish_credentials(session: AsyncSession, keys: Sequence[str], _: datetime) -> set[str]:
    revoked = [UUID(key.removeprefix(REVOCATION_PREFIX)) for key in keys if key.startswith(REVOCATION_PREFIX)]
    ids = [UUID(key) for key in keys if not key.startswith(REVOCATION_PREFIX)]
    told = await _publish_revocations(session, revoked)
    for row, standing in _CREDENTIALS:
        locked = select(row.id, row.version).where(row.id.in_(ids)).order_by(row.id).with_for_update()
        versions = {str(each): version for each, version in await session.execute(locked)}
        for credential in await standing(session, [UUID(key) for key in versions]):
            await publish_credential(session, credential, versions[credential.id])
            told.add(credential.id)
    return told


async def _publish_revocations(session: AsyncSession, ids: Sequence[UUID]) -> set[str]:
    standing = select(TokenRevocationRow).where(TokenRevocationRow.id.in_(ids))
    rows = (await session.scalars(standing.with_for_update())).all()
    for row in rows:
        await publish_revocation(session, revocation_document(row), row.version)
    return {f"{REVOCATION_PREFIX}{row.id}" for row in rows}


async def _layer_versions(session: AsyncSession, *, of_tenants: bool) -> dict[str, int]:
    of_tenant = ConfigLayerRow.layer == Layer.TENANT
    columns = (ConfigLayerRow.layer, ConfigLayerRow.name, ConfigLayerRow.namespace, ConfigLayerRow.version)
    found = select(*columns).where(ConfigLayerRow.document.is_not(None), of_tenant if of_tenants else ~of_tenant)
    return {
        layer_key(Layer(layer), name, namespace): version
        for layer, name, namespace, version in await session.execute(found)
    }


async def _tenant_layer_versions(session: AsyncSession, _: datetime) -> dict[str, int]:
    return await _layer_versions(session, of_tenants=True)


async def _platform_layer_versions(session: AsyncSession, _: datetime) -> dict[str, int]:
    return await _layer_versions(session, of_tenants=False)


async def _publish_layers(session: AsyncSession, keys: Sequence[str], _: datetime) -> set[str]:
    every = select(ConfigLayerRow.layer, ConfigLayerRow.name, ConfigLayerRow.namespace)
    places = [place for place in await session.execute(every) if layer_key(Layer(place[0]), *place[1:]) in set(keys)]
    key = tuple_(ConfigLayerRow.layer, ConfigLayerRow.name, ConfigLayerRow.namespace)
    locked = select(ConfigLayerRow).where(key.in_([tuple(place) for place in places])).with_for_update()
    told = set()
    for row in await session.scalars(locked):
        if row.document is not None:
            layer = layer_document(row)
            outside = msgspec.structs.replace(layer, document=published(layer.document))
            await publish_layer(session, outside, row.tenant_id)
            told.add(layer_key(layer.layer, layer.name, layer.namespace))
    return told


def _by_name(prefix: str, row: Any, name: Any, publish: Callable[[AsyncSession, Any], Awaitable[None]]) -> Any:
    """Versions and publication of a small table whose keys are names."""

    async def versions(session: AsyncSession, _: datetime) -> dict[str, int]:
        return {f"{prefix}{each}": version for each, version in await session.execute(select(name, row.version))}

    async def publish_named(session: AsyncSession, keys: Sequence[str], _: datetime) -> set[str]:
        wanted = select(row).where(name.in_([key.removeprefix(prefix) for key in keys])).order_by(name)
        told = set()
        for each in await session.scalars(wanted.with_for_update()):
            await publish(session, each)
            told.add(f"{prefix}{getattr(each, name.key)}")
        return told

    return versions, publish_named


async def _publish_tier_row(session: AsyncSession, row: TierRow) -> None:
    await publish_tier(session, tier_document(row))


async def _publish_store_row(session: AsyncSession, row: StoreRow) -> None:
    await publish_store(session, Store(name=row.name, region=row.region, version=row.version))


async def _publish_schema_row(session: AsyncSession, row: ConfigSchemaRow) -> None:
    await publish_schema(session, schema_document(row))


async def _publish_flag_row(session: AsyncSession, row: FlagRow) -> None:
    await publish_flag(session, flag_document(row))


async def _key_set_version(session: AsyncSession, now: datetime) -> dict[str, int]:
    _, version = await load_jwks(session, now=now)
    return {"jwks": version} if version else {}


async def _publish_key_set(session: AsyncSession, _: Sequence[str], now: datetime) -> set[str]:
    await session.execute(select(KeySetRow.version).with_for_update())
    jwks, version = await load_jwks(session, now=now)
    if not version:
        return set()
    await publish_key_set(session, jwks, version)
    return {"jwks"}


def _platform(type: str, prefix: str, row: Any, name: Any, publish: Any) -> Documents:  # noqa: A002 - as on the wire
    return Documents(PLATFORM_STATE, type, prefix, *_by_name(prefix, row, name, publish))


DOCUMENTS: Final[Sequence[Documents]] = (
    Documents(PLATFORM_STATE, "platform.jwks.v1", "jwks", _key_set_version, _publish_key_set),
    _platform("platform.tier.v1", "tier/", TierRow, TierRow.name, _publish_tier_row),
    _platform("platform.store.v1", "store/", StoreRow, StoreRow.name, _publish_store_row),
    _platform(
        "platform.config-schema.v1", "config-schema/", ConfigSchemaRow, ConfigSchemaRow.namespace, _publish_schema_row
    ),
    _platform("platform.flag.v1", "flag/", FlagRow, FlagRow.name, _publish_flag_row),
    Documents(PLATFORM_STATE, "platform.config.v1", "config/", _platform_layer_versions, _publish_layers),
    Documents(TENANT_STATE, "tenant.state.v1", "", _tenant_versions, _publish_tenants),
    Documents(TENANT_CONFIG, "tenant.config.v1", "", _tenant_layer_versions, _publish_layers),
    Documents(CREDENTIALS, "tenant.credential.v1", "", _credential_versions, _publish_credentials),
)
"""Tiers, keys and schemas before the tenants that refer to them."""
