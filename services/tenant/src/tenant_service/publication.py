"""What the tenant service tells the others: every document and event leaves through the outbox of the same transaction.

Each function also remembers the document in the session, so that the process that wrote it can serve it at once after
the commit (`tenant_service.local_state`) while the other processes follow the topics.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from tenantry import Store, Tenant, Tier
from tenantry.config import Layer, LayerDocument, NamespaceSchema, layer_key
from tenantry.events import OutboxEvent, append_outbox, append_outbox_many
from tenantry.features import Flag
from tenantry.identity import REVOCATION_PREFIX, Credential, TokenRevocation

TENANT_STATE = "tenant.state.v1"
TENANT_EVENTS = "tenant.events.v1"
TENANT_REQUESTS = "tenant.requests.v1"
TENANT_ACKS = "tenant.acks.v1"
CREDENTIALS = "tenant.credentials.v1"
PLATFORM_STATE = "platform.state.v1"
TENANT_CONFIG = "tenant.config.v1"

_CHANGES = "tenant_service.changes"


@dataclass(frozen=True, slots=True)
class CredentialRevoked:
    """A credential that is not accepted any more."""

    id: str


@dataclass(frozen=True, slots=True)
class KeySetChanged:
    """The public signing keys, as a JWKS document."""

    jwks: Mapping[str, Any]
    version: int


@dataclass(frozen=True, slots=True)
class LayerWithdrawn:
    """A layer that says nothing about a namespace any more."""

    layer: Layer
    name: str
    namespace: str


ConfigChange = LayerDocument | LayerWithdrawn | NamespaceSchema | Flag
Change = Tenant | Tier | Credential | CredentialRevoked | KeySetChanged | ConfigChange


def key_of_config(change: ConfigChange) -> str:
    """What a change of configuration is about: `layer/name/namespace`, `schema//name` or `flag//name`."""
    if isinstance(change, Flag):
        return f"flag//{change.name}"
    if isinstance(change, NamespaceSchema):
        return f"schema//{change.namespace}"
    return f"{change.layer}/{change.name}/{change.namespace}"


def changes_of(session: AsyncSession) -> list[Change]:
    """What this session has published, in order."""
    changes: list[Change] = session.info.setdefault(_CHANGES, [])
    return changes


Line = tuple[Tenant, str, Mapping[str, Any]]
"""A line of a tenant's story: the tenant, the event (as in `tell`) and what it says besides."""


async def publish_tenants(session: AsyncSession, tenants: Sequence[Tenant], lines: Sequence[Line] = ()) -> None:
    """The tenants as they are now, with lines of their stories, by one statement.

    Call it after the versions were raised under the rows' locks.
    """
    events = [
        OutboxEvent(
            topic=TENANT_STATE,
            key=str(tenant.id),
            type="tenant.state.v1",
            data=tenant,
            tenant_id=tenant.id,
            version=tenant.version,
        )
        for tenant in tenants
    ]
    await append_outbox_many(session, [*events, *map(_told, lines)])
    changes_of(session).extend(tenants)


async def withdraw_tenant(session: AsyncSession, tenant_id: UUID, version: int) -> None:
    """A tombstone: the tenant is gone for ever. Its id stays known as purged."""
    await append_outbox(
        session,
        topic=TENANT_STATE,
        key=str(tenant_id),
        type="tenant.state.v1",
        data=None,
        tenant_id=tenant_id,
        version=version,
    )


async def tell(session: AsyncSession, tenant: Tenant, event: str, data: Mapping[str, Any] | None = None) -> None:
    """A line of the tenant's story: `event` is e.g. "suspended", the type on the wire is `tenant.suspended.v1`."""
    await append_outbox_many(session, [_told((tenant, event, data or {}))])


def _told(line: Line) -> OutboxEvent:
    tenant, event, data = line
    return OutboxEvent(
        topic=TENANT_EVENTS,
        key=str(tenant.id),
        type=f"tenant.{event}.v1",
        data={
            "tenant_id": str(tenant.id),
            "external_id": tenant.external_id,
            "slug": tenant.slug,
            "status": tenant.status,
            **data,
        },
        tenant_id=tenant.id,
        version=tenant.version,
    )


async def publish_tier(session: AsyncSession, tier: Tier) -> None:
    """A tier: one record, however many tenants are on it."""
    await append_outbox(
        session,
        topic=PLATFORM_STATE,
        key=f"tier/{tier.name}",
        type="platform.tier.v1",
        data=tier,
        version=tier.version,
    )
    changes_of(session).append(tier)


async def publish_store(session: AsyncSession, store: Store) -> None:
    """Where a store is. Its address is never told: every service has its own, with credentials of its own."""
    await append_outbox(
        session,
        topic=PLATFORM_STATE,
        key=f"store/{store.name}",
        type="platform.store.v1",
        data=store,
        version=store.version,
    )


async def publish_key_set(session: AsyncSession, jwks: Mapping[str, Any], version: int) -> None:
    """The public keys that tokens are verified with."""
    await append_outbox(session, topic=PLATFORM_STATE, key="jwks", type="platform.jwks.v1", data=jwks, version=version)
    changes_of(session).append(KeySetChanged(jwks, version))


async def publish_credential(session: AsyncSession, credential: Credential, version: int) -> None:
    """An API key or a session, by its hash: every service accepts it from its own memory."""
    await append_outbox(
        session,
        topic=CREDENTIALS,
        key=credential.id,
        type="tenant.credential.v1",
        data=credential,
        tenant_id=credential.tenant_id,
        version=version,
    )
    changes_of(session).append(credential)


async def withdraw_credential(session: AsyncSession, credential_id: UUID, tenant_id: UUID | None, version: int) -> None:
    """A tombstone: a credential that nobody knows is refused."""
    await append_outbox(
        session,
        topic=CREDENTIALS,
        key=str(credential_id),
        type="tenant.credential.v1",
        data=None,
        tenant_id=tenant_id,
        version=version,
    )
    changes_of(session).append(CredentialRevoked(str(credential_id)))


async def publish_layer(session: AsyncSession, layer: LayerDocument, tenant_id: UUID | None) -> None:
    """What a layer says about a namespace now; secrets are in it as the times at which they were set."""
    await _append_layer(session, (layer.layer, layer.name, layer.namespace), layer, layer.version, tenant_id)
    changes_of(session).append(layer)


async def withdraw_layer(session: AsyncSession, gone: LayerWithdrawn, version: int, tenant_id: UUID | None) -> None:
    """A tombstone: the layer says nothing."""
    await _append_layer(session, (gone.layer, gone.name, gone.namespace), None, version, tenant_id)
    changes_of(session).append(gone)


async def _append_layer(
    session: AsyncSession,
    place: tuple[Layer, str, str],
    data: LayerDocument | None,
    version: int,
    tenant_id: UUID | None,
) -> None:
    of_tenant = place[0] is Layer.TENANT
    await append_outbox(
        session,
        topic=TENANT_CONFIG if of_tenant else PLATFORM_STATE,
        key=layer_key(*place),
        type="tenant.config.v1" if of_tenant else "platform.config.v1",
        data=data,
        tenant_id=tenant_id,
        version=version,
    )


async def publish_schema(session: AsyncSession, schema: NamespaceSchema) -> None:
    """What a namespace may hold."""
    await append_outbox(
        session,
        topic=PLATFORM_STATE,
        key=f"config-schema/{schema.namespace}",
        type="platform.config-schema.v1",
        data=schema,
        version=schema.version,
    )
    changes_of(session).append(schema)


async def publish_flag(session: AsyncSession, flag: Flag) -> None:
    """A flag's definition."""
    await append_outbox(
        session,
        topic=PLATFORM_STATE,
        key=f"flag/{flag.name}",
        type="platform.flag.v1",
        data=flag,
        version=flag.version,
    )
    changes_of(session).append(flag)


async def publish_revocation(session: AsyncSession, revocation: TokenRevocation, version: int) -> None:
    """Whose tokens of another issuer are refused; this service accepts none of them itself."""
    await append_outbox(
        session,
        topic=CREDENTIALS,
        key=f"{REVOCATION_PREFIX}{revocation.id}",
        type="tenant.token-revocation.v1",
        data=revocation,
        tenant_id=revocation.tenant_id,
        version=version,
    )


async def withdraw_revocation(session: AsyncSession, revocation_id: UUID, tenant_id: UUID | None, version: int) -> None:
    """A tombstone: no token is left that it was about, or it was a mistake."""
    await append_outbox(
        session,
        topic=CREDENTIALS,
        key=f"{REVOCATION_PREFIX}{revocation_id}",
        type="tenant.token-revocation.v1",
        data=None,
        tenant_id=tenant_id,
        version=version,
    )
