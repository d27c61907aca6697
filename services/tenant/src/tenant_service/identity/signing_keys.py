"""The keys that tokens are signed with: made here, stored encrypted, published as a JWKS, rotated without a gap."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from joserfc import jwt
from joserfc.jwk import ECKey
from sqlalchemy import delete, select, update
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncSession

from tenant_service import audit
from tenant_service.audit import Actor
from tenant_service.domain.tokens import TOKEN_LIFETIME
from tenant_service.identity.secrets import MasterKey, Sealed
from tenant_service.models import KeySetRow, SigningKeyRow
from tenant_service.publication import publish_key_set
from tenantry import Conflict, uuid7

ALGORITHM = "ES256"

# A new key is published this long before it signs, so that no service meets a token whose key it has not yet heard of.
PUBLISH_AHEAD = timedelta(seconds=60)
# The old key is accepted until its last token has ended, and this much longer for clocks that differ.
LEEWAY = timedelta(minutes=1)

_KEY_SET = "tokens"


class RotationPending(Conflict):
    """The key of the last rotation does not sign yet."""

    type = "rotation-pending"
    title = "The last rotation is not over"


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A key that signs from `signs_from` and is accepted until `valid_until` (None: until it is rotated)."""

    kid: str
    key: ECKey
    signs_from: datetime
    valid_until: datetime | None


class Signer:
    """Signs tokens with the newest key whose time has come."""

    def __init__(self, keys: Sequence[SigningKey]) -> None:
        self._keys = sorted(keys, key=lambda key: key.signs_from, reverse=True)

    def sign(self, claims: Mapping[str, Any], now: datetime) -> str:
        """The token. Raises `LookupError` where no key signs yet, which `ensure_signing_key` rules out."""
        for key in self._keys:
            if key.signs_from <= now:
                return jwt.encode({"alg": ALGORITHM, "kid": key.kid, "typ": "JWT"}, dict(claims), key.key, [ALGORITHM])
        raise LookupError("no signing key has reached its time")


async def ensure_signing_key(session: AsyncSession, master_key: MasterKey, *, now: datetime) -> None:
    """Make the first key where there is none; may be repeated and may run in many processes at once."""
    key_set = await _lock_key_set(session)
    if key_set.version == 0:
        await _add_key(session, key_set, master_key, created_at=now, signs_from=now)


async def rotate_signing_key(session: AsyncSession, master_key: MasterKey, *, actor: Actor, now: datetime) -> str:
    """Publish a new key, which signs a minute from now, and let the present one end when its last token has.

    Returns the new key's id. Raises `RotationPending` while the last rotation is not over.
    """
    key_set = await _lock_key_set(session)
    newest = select(SigningKeyRow.signs_from).order_by(SigningKeyRow.signs_from.desc()).limit(1)
    if ((await session.execute(newest)).scalar_one()) > now:
        raise RotationPending("The newest key does not sign yet; try again in a minute")
    signs_from = now + PUBLISH_AHEAD
    await session.execute(
        update(SigningKeyRow)
        .where(SigningKeyRow.valid_until.is_(None))
        .values(valid_until=signs_from + TOKEN_LIFETIME + LEEWAY)
    )
    kid = await _add_key(session, key_set, master_key, created_at=now, signs_from=signs_from)
    await audit.record(session, actor, "signing_key.rotate", target=kid, now=now)
    return kid


async def retire_signing_keys(session: AsyncSession, *, now: datetime) -> int:
    """Destroy keys whose last token has ended and take them out of the published set. Returns how many there were."""
    key_set = await _lock_key_set(session)
    over = delete(SigningKeyRow).where(SigningKeyRow.valid_until <= now).returning(SigningKeyRow.kid)
    retired = (await session.scalars(over.execution_options(synchronize_session=False))).all()
    if retired:
        key_set.version += 1
        await session.flush()
        jwks, version = await load_jwks(session, now=now)
        await publish_key_set(session, jwks, version)
    return len(retired)


async def rewrap_signing_keys(session: AsyncSession, master_key: MasterKey) -> int:
    """Encrypt every private key with the present master key; the caller commits. May be repeated; returns how many."""
    await _lock_key_set(session)
    rows = (await session.scalars(select(SigningKeyRow).order_by(SigningKeyRow.kid))).all()
    for row in rows:
        name = _name(row.kid)
        sealed = master_key.seal(master_key.open(Sealed(row.nonce, row.private_key), name), name)
        row.nonce, row.private_key = sealed.nonce, sealed.ciphertext
    await session.flush()
    return len(rows)


async def load_signer(session: AsyncSession, master_key: MasterKey, *, now: datetime) -> Signer:
    """The signer with every key that is still valid. Raises `MasterKeyError` for a wrong master key."""
    keys = []
    for row in await _valid_rows(session, now):
        private = master_key.open(Sealed(row.nonce, row.private_key), _name(row.kid))
        keys.append(SigningKey(row.kid, ECKey.import_key(json.loads(private)), row.signs_from, row.valid_until))
    return Signer(keys)


async def load_jwks(session: AsyncSession, *, now: datetime) -> tuple[dict[str, Any], int]:
    """The public keys and the version of their set."""
    version = (await session.execute(select(KeySetRow.version).where(KeySetRow.name == _KEY_SET))).scalar_one_or_none()
    rows = await _valid_rows(session, now)
    return _jwks([(row.public_jwk, row.valid_until) for row in rows], now), version or 0


async def _valid_rows(session: AsyncSession, now: datetime) -> Sequence[SigningKeyRow]:
    valid = (SigningKeyRow.valid_until.is_(None)) | (SigningKeyRow.valid_until > now)
    return (await session.scalars(select(SigningKeyRow).where(valid).order_by(SigningKeyRow.signs_from))).all()


async def _lock_key_set(session: AsyncSession) -> KeySetRow:
    first = upsert(KeySetRow).values(name=_KEY_SET, version=0).on_conflict_do_nothing()
    await session.execute(first)
    return (await session.scalars(select(KeySetRow).where(KeySetRow.name == _KEY_SET).with_for_update())).one()


async def _add_key(
    session: AsyncSession, key_set: KeySetRow, master_key: MasterKey, *, created_at: datetime, signs_from: datetime
) -> str:
    kid = str(uuid7())
    key = ECKey.generate_key("P-256", {"kid": kid, "use": "sig", "alg": ALGORITHM}, private=True)
    sealed = master_key.seal(json.dumps(key.as_dict(private=True)).encode(), _name(kid))
    row = SigningKeyRow(
        kid=kid,
        public_jwk=_public_jwk(key, kid),
        nonce=sealed.nonce,
        private_key=sealed.ciphertext,
        created_at=created_at,
        signs_from=signs_from,
        valid_until=None,
    )
    session.add(row)
    key_set.version += 1
    await session.flush()
    jwks, version = await load_jwks(session, now=created_at)
    await publish_key_set(session, jwks, version)
    return kid


def _public_jwk(key: ECKey, kid: str) -> dict[str, Any]:
    return {**key.as_dict(private=False), "kid": kid, "use": "sig", "alg": ALGORITHM}


def _jwks(keys: Sequence[tuple[Mapping[str, Any], datetime | None]], now: datetime) -> dict[str, Any]:
    return {"keys": [dict(jwk) for jwk, valid_until in keys if valid_until is None or valid_until > now]}


def _name(kid: str) -> str:
    return f"signing key {kid}"
