"""Secrets in documents: a data key for each owner, wrapped with the master key, and ciphertexts bound to their place.

A stored secret is `{"$secret": {"set_at", "nonce", "ciphertext"}}`. Only `reveal` makes it readable again, and only for
the service that asks for it; nothing else that leaves this service holds more than the time at which it was set.
"""

import base64
import os
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncSession

from tenant_service import audit
from tenant_service.audit import Actor
from tenant_service.config.models import ConfigKeyRow
from tenant_service.config.places import Place
from tenant_service.identity.secrets import MasterKey, Sealed
from tenantry import Conflict
from tenantry.config import SECRET, is_secret

_KEY_BYTES: Final = 32
_NONCE_BYTES: Final = 12


class KeyDestroyed(Conflict):
    """The owner's data key is gone: nothing can be read with it or written any more."""

    type = "key-destroyed"
    title = "The tenant's key was destroyed"


class SecretUnreadable(Conflict):
    """A ciphertext that the owner's key does not open: it was moved or changed behind our back."""

    type = "secret-unreadable"
    title = "The secret cannot be read"


class DataKey:
    """An owner's key. Ciphertexts open only in the place that they were made for."""

    def __init__(self, key: bytes) -> None:
        self._cipher = AESGCM(key)

    def seal(self, value: str, place: Place, pointer: str, now: datetime) -> dict[str, Any]:
        """What is stored in the place of `value`."""
        nonce = os.urandom(_NONCE_BYTES)
        ciphertext = self._cipher.encrypt(nonce, value.encode(), _bound_to(place, pointer))
        return {
            SECRET: {
                "set_at": now.isoformat(),
                "nonce": base64.b64encode(nonce).decode(),
                "ciphertext": base64.b64encode(ciphertext).decode(),
            }
        }

    def open(self, stored: Mapping[str, Any], place: Place, pointer: str) -> str:
        """The value. Raises `SecretUnreadable`."""
        sealed = stored[SECRET]
        try:
            nonce, ciphertext = base64.b64decode(sealed["nonce"]), base64.b64decode(sealed["ciphertext"])
            return self._cipher.decrypt(nonce, ciphertext, _bound_to(place, pointer)).decode()
        except (InvalidTag, KeyError, ValueError):
            raise SecretUnreadable(f"The secret at {pointer} cannot be read") from None


async def data_key(session: AsyncSession, master_key: MasterKey, owner_id: UUID, *, now: datetime) -> DataKey:
    """The owner's key, made at first use, its row locked against being destroyed meanwhile. Raises `KeyDestroyed`."""
    found = select(ConfigKeyRow).where(ConfigKeyRow.owner_id == owner_id).with_for_update(read=True)
    row = (await session.scalars(found)).one_or_none()
    if row is None:
        sealed = master_key.seal(os.urandom(_KEY_BYTES), _name(owner_id))
        new = {"owner_id": owner_id, "nonce": sealed.nonce, "wrapped_key": sealed.ciphertext, "created_at": now}
        await session.execute(upsert(ConfigKeyRow).values(new).on_conflict_do_nothing())
        row = (await session.scalars(found)).one()
    if row.nonce is None or row.wrapped_key is None:
        raise KeyDestroyed("The key of this tenant's secrets was destroyed")
    return DataKey(master_key.open(Sealed(row.nonce, row.wrapped_key), _name(owner_id)))


async def destroy_tenant_key(session: AsyncSession, tenant_id: UUID, *, actor: Actor, now: datetime) -> bool:
    """Make every secret of a tenant, past versions and backups of documents included, unreadable for good.

    The caller commits. May be repeated; returns whether there was a key. A key that never was can be destroyed as well,
    so that none is made later.
    """
    gone = {"owner_id": tenant_id, "nonce": None, "wrapped_key": None, "created_at": now, "destroyed_at": now}
    await session.execute(upsert(ConfigKeyRow).values(gone).on_conflict_do_nothing())
    row = await session.get(ConfigKeyRow, tenant_id, with_for_update=True, populate_existing=True)
    if row is None or row.wrapped_key is None:
        return False
    row.nonce = row.wrapped_key = None
    row.destroyed_at = now
    await session.flush()
    await audit.record(session, actor, "config.key_destroyed", target=str(tenant_id), chain_id=tenant_id, now=now)
    return True


async def rewrap_data_keys(session: AsyncSession, master_key: MasterKey) -> int:
    """Wrap every data key with the present master key, whichever of the known ones it was wrapped with.

    The caller commits. May be repeated; returns how many keys there are.
    """
    living = select(ConfigKeyRow).where(ConfigKeyRow.wrapped_key.is_not(None)).order_by(ConfigKeyRow.owner_id)
    rows = (await session.scalars(living.with_for_update())).all()
    for row in rows:
        if row.nonce is None or row.wrapped_key is None:
            continue
        name = _name(row.owner_id)
        sealed = master_key.seal(master_key.open(Sealed(row.nonce, row.wrapped_key), name), name)
        row.nonce, row.wrapped_key = sealed.nonce, sealed.ciphertext
    await session.flush()
    return len(rows)


def shown(value: Any) -> Any:
    """A document for people: a secret is `{"secret": true, "set_at": …}`."""
    return _replaced(value, lambda secret: {"secret": True, "set_at": secret.get("set_at")})


def published(value: Any) -> Any:
    """A document for the other services: a secret is `{"$secret": {"set_at": …}}`."""
    return _replaced(value, lambda secret: {SECRET: {"set_at": secret.get("set_at")}})


def _replaced(value: Any, replacement: Any) -> Any:
    if is_secret(value):
        return replacement(value[SECRET])
    if isinstance(value, dict):
        return {key: _replaced(member, replacement) for key, member in value.items()}
    if isinstance(value, list):
        return [_replaced(item, replacement) for item in value]
    return value


def _bound_to(place: Place, pointer: str) -> bytes:
    return "\n".join(("config secret", str(place.owner_id), place.key, pointer)).encode()


def _name(owner_id: UUID) -> str:
    return f"config key {owner_id}"
