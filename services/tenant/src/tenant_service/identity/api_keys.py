"""API keys of tenants: shown once, stored as a hash, published to every service. The caller commits.

Keys of a tenant are made, replaced and ended one after the other, under the tenant's row: a key that is being made with
another one is not missed when that one is revoked.
"""

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import select, text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncSession

from tenant_service import audit
from tenant_service.audit import Actor, Deed
from tenant_service.identity.secrets import sha256
from tenant_service.models import ApiKeyRow, TenantRow
from tenant_service.publication import publish_credential, withdraw_credential
from tenant_service.tenants.repository import lock_tenant
from tenant_service.transactions import Transactions
from tenantry import Conflict, InvalidRequest, NotFound, PermissionDenied, Unauthenticated, Unavailable, uuid7
from tenantry.identity import API_KEY_PREFIX, Credential, Principal, PrincipalKind, new_api_key

_NOTE_USE = text(
    """
    WITH used AS (
        SELECT api_key.id, given.at FROM unnest(CAST(:ids AS uuid[]), CAST(:times AS timestamptz[])) AS given (id, at)
        JOIN system.api_key USING (id)
        WHERE api_key.last_used_at IS NULL OR api_key.last_used_at <= given.at - interval '1 minute'
        FOR UPDATE OF api_key SKIP LOCKED
    )
    UPDATE system.api_key SET last_used_at = used.at FROM used WHERE api_key.id = used.id
    """
)

# Bounded by the keys of a tenant; a key is older than what is made with it, so there is no circle.
_MADE_WITH = text(
    """
    WITH RECURSIVE below AS (
        SELECT id FROM system.api_key WHERE made_with = :key_id
        UNION ALL
        SELECT api_key.id FROM system.api_key JOIN below ON api_key.made_with = below.id
    )
    SELECT id FROM below
    """
)

# What a list shows of a key: enough for people to tell keys apart, 40 of 256 bits.
SHOWN_LENGTH = len(API_KEY_PREFIX) + 8


class ExpiryInThePast(InvalidRequest):
    """A key that has already ended is a mistake."""


class BeyondIssuer(PermissionDenied):
    """A key that could do more, or for longer, than whoever makes it."""

    type = "beyond-issuer"
    title = "The key would allow more than its maker may"


class ApiKeyEnded(Conflict):
    """Revoked, expired, or replaced already."""

    type = "api-key-ended"
    title = "The key cannot be replaced any more"


class InvalidApiKey(Unauthenticated):
    """Unknown, revoked or expired: the answer does not say which."""

    type = "invalid-api-key"
    title = "The API key is not accepted"


async def create_api_key(
    session: AsyncSession,
    tenant: TenantRow,
    *,
    name: str,
    scopes: Collection[str],
    expires_at: datetime | None,
    issuer: Principal,
    actor: Actor,
    now: datetime,
) -> tuple[ApiKeyRow, str]:
    """A new key of the tenant, and its text, which is not kept.

    Raises `ExpiryInThePast`, `BeyondIssuer`, and `InvalidApiKey` where the key that makes it has just ended.
    """
    if expires_at is not None and expires_at <= now:
        detail = "the expiry lies in the past"
        raise ExpiryInThePast(detail, errors=[{"loc": ["body", "expires_at"], "msg": detail}])
    await lock_tenant(session, tenant.id)
    maker = await _check_issuer(session, issuer, scopes, expires_at, now)
    return await _add(
        session,
        tenant.id,
        name=name,
        scopes=scopes,
        expires_at=expires_at,
        made_with=maker,
        action="api_key.create",
        actor=actor,
        now=now,
    )


async def rotate_api_key(
    session: AsyncSession,
    tenant: TenantRow,
    key_id: UUID,
    *,
    overlap: timedelta,
    issuer: Principal,
    actor: Actor,
    now: datetime,
) -> tuple[ApiKeyRow, str]:
    """A key in the place of another, with its name, scopes and expiry.

    The other one ends after the overlap, and with it whatever was made with it; one that replaces itself does not end
    its successor. Raises `NotFound`, `ApiKeyEnded` (also for a key that was replaced before), `BeyondIssuer`, and
    `InvalidApiKey` where the key that rotates has just ended.
    """
    await lock_tenant(session, tenant.id)
    old = await _lock(session, tenant.id, key_id)
    if old.replaced_by is not None or old.revoked_at is not None or not _lives(old, now):
        raise ApiKeyEnded("The key is revoked, expired or replaced; make a new one")
    rotator = await _check_issuer(session, issuer, old.scopes, old.expires_at, now)
    row, secret = await _add(
        session,
        tenant.id,
        name=old.name,
        scopes=old.scopes,
        expires_at=old.expires_at,
        # Whoever holds the key that rotates has seen the new one.
        made_with=old.made_with if rotator in {None, old.id} else rotator,
        action="api_key.rotate",
        actor=actor,
        now=now,
        replaces=old.id,
    )
    old.replaced_by = row.id
    until = now + overlap
    below = [each for each in await _made_with(session, old) if each.expires_at is None or each.expires_at > until]
    for each in [old, *below]:
        each.expires_at = until if each.expires_at is None else min(until, each.expires_at)
        await _renew(session, each, now)
    await _audit_descendants(session, old, below, "api_key.limit", actor, now, expires_at=until.isoformat())
    return row, secret


async def _add(
    session: AsyncSession,
    tenant_id: UUID,
    *,
    name: str,
    scopes: Collection[str],
    expires_at: datetime | None,
    made_with: UUID | None,
    action: str,
    actor: Actor,
    now: datetime,
    replaces: UUID | None = None,
) -> tuple[ApiKeyRow, str]:
    secret = new_api_key()
    row = ApiKeyRow(
        id=uuid7(),
        tenant_id=tenant_id,
        name=name,
        prefix=secret[:SHOWN_LENGTH],
        secret_sha256=sha256(secret),
        scopes=sorted(set(scopes)),
        version=1,
        created_at=now,
        expires_at=expires_at,
        revoked_at=None,
        created_by=actor.subject,
        replaced_by=None,
        last_used_at=None,
        made_with=made_with,
        withdrawn_at=None,
    )
    session.add(row)
    await session.flush()
    await publish_credential(session, _credential(row), row.version)
    detail = {"name": name, "prefix": row.prefix, "scopes": row.scopes}
    if replaces is not None:
        detail["replaces"] = str(replaces)
    await _audit(session, row, action, detail, actor, now)
    return row, secret


async def list_api_keys(
    session: AsyncSession, tenant_id: UUID, *, after: UUID | None, limit: int
) -> Sequence[ApiKeyRow]:
    """At most `limit` keys of the tenant, revoked ones among them, in the order of creation."""
    statement = select(ApiKeyRow).where(ApiKeyRow.tenant_id == tenant_id).order_by(ApiKeyRow.id).limit(limit)
    if after is not None:
        statement = statement.where(ApiKeyRow.id > after)
    return (await session.scalars(statement)).all()


async def revoke_api_key(session: AsyncSession, tenant_id: UUID, key_id: UUID, *, actor: Actor, now: datetime) -> None:
    """Refuse the key, what was made with it, and their tokens from now on, in every service; may be repeated.

    Raises `NotFound`.
    """
    await lock_tenant(session, tenant_id)
    row = await _lock(session, tenant_id, key_id)
    if row.revoked_at is not None:
        return
    below = await _made_with(session, row)
    for each in [row, *below]:
        each.revoked_at = now
        await _renew(session, each, now)
    await _audit(session, row, "api_key.revoke", {"name": row.name, "prefix": row.prefix}, actor, now)
    await _audit_descendants(session, row, below, "api_key.revoke", actor, now)


async def revoke_api_keys_of(session: AsyncSession, tenant: TenantRow, *, actor: Actor, now: datetime) -> None:
    """Revoke every key of a tenant that has come to nothing, whose row the caller has locked."""
    living = select(ApiKeyRow).where(ApiKeyRow.tenant_id == tenant.id, ApiKeyRow.revoked_at.is_(None))
    for row in (await session.scalars(living.order_by(ApiKeyRow.id).with_for_update())).all():
        row.revoked_at = now
        await _renew(session, row, now)
        await _audit(session, row, "api_key.revoke", {"name": row.name, "prefix": row.prefix}, actor, now)


async def withdraw_expired_keys(session: AsyncSession, *, now: datetime, limit: int) -> int:
    """Take at most `limit` expired keys off the topic and return how many; what another process holds is left."""
    expired = select(ApiKeyRow).where(ApiKeyRow.withdrawn_at.is_(None), ApiKeyRow.expires_at <= now)
    rows = (await session.scalars(expired.limit(limit).with_for_update(skip_locked=True))).all()
    for row in rows:
        await _renew(session, row, now)
    return len(rows)


async def authenticate_api_key(session: AsyncSession, secret: str, *, now: datetime) -> ApiKeyRow:
    """The live key with this text, found by its hash. Raises `InvalidApiKey`."""
    statement = select(ApiKeyRow).where(ApiKeyRow.secret_sha256 == sha256(secret), ApiKeyRow.revoked_at.is_(None))
    row = (await session.scalars(statement)).one_or_none()
    if row is None or not _lives(row, now):
        raise InvalidApiKey("The API key is unknown, revoked or expired")
    return row


async def note_use(session: AsyncSession, last_used_at: Mapping[UUID, datetime]) -> None:
    """Write down when keys were last used: one statement, which leaves alone what was written less than a minute ago.

    Ids that are no keys' are ignored. A row that somebody else holds is passed over: the next use will be written.
    """
    values = {"ids": list(last_used_at), "times": list(last_used_at.values())}
    await session.execute(_NOTE_USE, values)


def written_by(transactions: Transactions) -> Callable[[Mapping[str, datetime]], Awaitable[None]]:
    """Writes down which keys this service's own API has accepted, in a transaction a call. Raises `Unavailable`."""

    async def write(last_used_at: Mapping[str, datetime]) -> None:
        try:
            async with transactions.begin() as session:
                await note_use(session, {UUID(key_id): at for key_id, at in last_used_at.items()})
        except (SQLAlchemyError, OSError) as error:
            raise Unavailable("The database is away.") from error

    return write


async def standing_credentials(session: AsyncSession, ids: Sequence[UUID] | None = None) -> Sequence[Credential]:
    """The keys that the topic should hold, all or those among `ids`: expired ones until they are taken off it."""
    statement = select(ApiKeyRow).where(ApiKeyRow.withdrawn_at.is_(None))
    if ids is not None:
        statement = statement.where(ApiKeyRow.id.in_(ids))
    return [_credential(row) for row in await session.scalars(statement)]


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


async def _lock(session: AsyncSession, tenant_id: UUID, key_id: UUID) -> ApiKeyRow:
    mine = (ApiKeyRow.id == key_id, ApiKeyRow.tenant_id == tenant_id)
    row = (await session.scalars(select(ApiKeyRow).where(*mine).with_for_update())).one_or_none()
    if row is None:
        raise NotFound
    return row


async def _made_with(session: AsyncSession, row: ApiKeyRow) -> Sequence[ApiKeyRow]:
    """The keys that were made with this one, or with one of those, and are not revoked; locked."""
    ids = (await session.scalars(_MADE_WITH, {"key_id": row.id})).all()
    if not ids:
        return []
    below = select(ApiKeyRow).where(ApiKeyRow.id.in_(ids), ApiKeyRow.revoked_at.is_(None)).order_by(ApiKeyRow.id)
    return (await session.scalars(below.with_for_update())).all()


async def _renew(session: AsyncSession, row: ApiKeyRow, now: datetime) -> None:
    """Publish what has become of a key: its record, or a tombstone where it is not accepted any more."""
    row.version += 1
    alive = row.revoked_at is None and _lives(row, now)
    if not alive:
        row.withdrawn_at = now
    await session.flush()
    if alive:
        await publish_credential(session, _credential(row), row.version)
    else:
        await withdraw_credential(session, row.id, row.tenant_id, row.version)


async def _check_issuer(
    session: AsyncSession, issuer: Principal, scopes: Collection[str], expires_at: datetime | None, now: datetime
) -> UUID | None:
    """The key that makes this one, if a key does.

    Raises `BeyondIssuer` where the new key would allow more than its maker may, or outlive the key that makes it, and
    `InvalidApiKey` where that one has ended between the request and now.
    """
    if issuer.acts_for_any_tenant:
        return None
    if beyond := sorted(scope for scope in scopes if not issuer.has_any(scope)):
        raise BeyondIssuer(f"Not granted to the caller: {' '.join(beyond)}")
    if issuer.kind is not PrincipalKind.API_KEY:
        return None
    maker = await session.get(ApiKeyRow, UUID(issuer.credential_id), populate_existing=True)
    if maker is None or maker.revoked_at is not None or not _lives(maker, now):
        raise InvalidApiKey("The API key is unknown, revoked or expired")
    if maker.expires_at is not None and (expires_at is None or expires_at > maker.expires_at):
        raise BeyondIssuer("A key that is made with a key ends with it at the latest; set expires_at")
    return maker.id


def _lives(row: ApiKeyRow, now: datetime) -> bool:
    return row.expires_at is None or row.expires_at > now


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


async def _audit_descendants(
    session: AsyncSession,
    ended: ApiKeyRow,
    below: Sequence[ApiKeyRow],
    action: str,
    actor: Actor,
    now: datetime,
    **detail: str,
) -> None:
    deeds = [
        Deed(
            action,
            str(row.id),
            row.tenant_id,
            {"name": row.name, "prefix": row.prefix, "because_of": str(ended.id), **detail},
        )
        for row in below
    ]
    await audit.record_many(session, actor, deeds, now=now)
