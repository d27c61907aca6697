"""API keys of tenants: shown once, stored as a hash, published to every service. The caller commits."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from tenant_service import audit
from tenant_service.audit import Actor
from tenant_service.identity.secrets import sha256
from tenant_service.models import ApiKeyRow
from tenant_service.publication import publish_credential, withdraw_credential
from tenant_service.tenants.repository import find_tenant
from tenantry import InvalidRequest, NotFound, Unauthenticated, uuid7
from tenantry.identity import API_KEY_PREFIX, Credential, new_api_key

# What a list shows of a key: enough for people to tell keys apart, 40 of 256 bits.
SHOWN_LENGTH = len(API_KEY_PREFIX) + 8


class ExpiryInThePast(InvalidRequest):
    """A key that has already ended is a mistake."""


class InvalidApiKey(Unauthenticated):
    """Unknown, revoked or expired: the answer does not say which."""

    type = "invalid-api-key"
    title = "The API key is not accepted"


async def create_api_key(
    session: AsyncSession,
    reference: str,
    *,
    name: str,
    scopes: Sequence[str],
    expires_at: datetime | None,
    actor: Actor,
    now: datetime,
) -> tuple[ApiKeyRow, str]:
    """A new key of the tenant, and its text, which is not kept. Raises `NotFound`, `ExpiryInThePast`."""
    tenant, _ = await find_tenant(session, reference)
    if expires_at is not None and expires_at <= now:
        detail = "the expiry lies in the past"
        raise ExpiryInThePast(detail, errors=[{"loc": ["body", "expires_at"], "msg": detail}])
    secret = new_api_key()
    row = ApiKeyRow(
        id=uuid7(),
        tenant_id=tenant.id,
        name=name,
        prefix=secret[:SHOWN_LENGTH],
        secret_sha256=sha256(secret),
        scopes=sorted(set(scopes)),
        version=1,
        created_at=now,
        expires_at=expires_at,
        revoked_at=None,
    )
    session.add(row)
    await session.flush()
    await publish_credential(session, _credential(row), row.version)
    detail_of_key = {"name": name, "prefix": row.prefix, "scopes": row.scopes}
    await _audit(session, row, "api_key.create", detail_of_key, actor, now)
    return row, secret


async def list_api_keys(
    session: AsyncSession, reference: str, *, after: UUID | None, limit: int
) -> Sequence[ApiKeyRow]:
    """At most `limit` keys of the tenant, revoked ones among them, in the order of creation. Raises `NotFound`."""
    tenant, _ = await find_tenant(session, reference)
    statement = select(ApiKeyRow).where(ApiKeyRow.tenant_id == tenant.id).order_by(ApiKeyRow.id).limit(limit)
    if after is not None:
        statement = statement.where(ApiKeyRow.id > after)
    return (await session.scalars(statement)).all()


async def revoke_api_key(session: AsyncSession, reference: str, key_id: UUID, *, actor: Actor, now: datetime) -> None:
    """Refuse the key from now on, in every service; may be repeated. Raises `NotFound`."""
    tenant, _ = await find_tenant(session, reference)
    mine = (ApiKeyRow.id == key_id, ApiKeyRow.tenant_id == tenant.id)
    row = (await session.scalars(select(ApiKeyRow).where(*mine).with_for_update())).one_or_none()
    if row is None:
        raise NotFound
    if row.revoked_at is not None:
        return
    row.revoked_at = now
    row.version += 1
    await session.flush()
    await withdraw_credential(session, row.id, row.tenant_id, row.version)
    await _audit(session, row, "api_key.revoke", {"name": row.name, "prefix": row.prefix}, actor, now)


async def authenticate_api_key(session: AsyncSession, secret: str, *, now: datetime) -> ApiKeyRow:
    """The live key with this text, found by its hash. Raises `InvalidApiKey`."""
    statement = select(ApiKeyRow).where(ApiKeyRow.secret_sha256 == sha256(secret), ApiKeyRow.revoked_at.is_(None))
    row = (await session.scalars(statement)).one_or_none()
    if row is None or (row.expires_at is not None and row.expires_at <= now):
        raise InvalidApiKey("The API key is unknown, revoked or expired")
    return row


async def live_credentials(
    session: AsyncSession, *, now: datetime, ids: Sequence[UUID] | None = None
) -> Sequence[Credential]:
    """The keys that are accepted now: all of them, or those among `ids`."""
    statement = select(ApiKeyRow).where(
        ApiKeyRow.revoked_at.is_(None), (ApiKeyRow.expires_at.is_(None)) | (ApiKeyRow.expires_at > now)
    )
    if ids is not None:
        statement = statement.where(ApiKeyRow.id.in_(ids))
    return [_credential(row) for row in await session.scalars(statement)]


def _credential(row: ApiKeyRow) -> Credential:
    return Credential(
        id=str(row.id),
        kind="api_key",
        hash=row.secret_sha256.hex(),
        tenant_id=row.tenant_id,
        subject=f"api-key:{row.id}",
        scopes=frozenset(row.scopes),
        expires_at=row.expires_at,
    )


async def _audit(
    session: AsyncSession, row: ApiKeyRow, action: str, detail: Mapping[str, object], actor: Actor, now: datetime
) -> None:
    await audit.record(session, actor, action, target=str(row.id), chain_id=row.tenant_id, now=now, detail=detail)
