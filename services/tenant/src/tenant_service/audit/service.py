"""Use cases of the trail: computing it anew, and taking one person out of its details."""

import asyncio
import hmac
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from tenant_service.audit import repository
from tenant_service.audit.trail import Actor, record
from tenant_service.domain.audit_chain import ERASURE, REPLACED, content_hash
from tenant_service.domain.audit_erasing import new_pseudonym, without
from tenant_service.domain.audit_trail import TrailCheck, Verification

_SALT_BYTES = 16


@dataclass(frozen=True, slots=True)
class Erased:
    """How many entries have other details now. Whoever knows a value can tell it by `hashes`, under `salt`."""

    entries: int
    salt: bytes
    hashes: list[str]


async def erase_person(
    session: AsyncSession, actor: Actor, tenant_id: UUID, values: Sequence[str], *, now: datetime
) -> Erased:
    """Take values out of the details of a tenant's entries. The caller commits; may be repeated.

    The chain holds: an entry of its own says which were changed, and what they are since.
    """
    await repository.lock_chain(session, tenant_id)
    pseudonyms = {value: new_pseudonym() for value in values}
    changed = {}
    for each in await repository.find_naming(session, tenant_id, list(pseudonyms)):
        detail = without(each.entry.detail, pseudonyms)
        if detail != each.entry.detail:
            changed[each.position] = replace(each.entry, detail=detail)
    if changed:
        await repository.replace_details(session, tenant_id, {place: each.detail for place, each in changed.items()})
    salt = secrets.token_bytes(_SALT_BYTES)
    hashes = [hmac.digest(salt, value.encode(), "sha256").hex() for value in pseudonyms]
    detail = {
        REPLACED: {str(place): content_hash(each).hex() for place, each in changed.items()},
        "salt": salt.hex(),
        "values": hashes,
    }
    await record(session, actor, ERASURE, target=str(tenant_id), chain_id=tenant_id, detail=detail, now=now)
    return Erased(len(changed), salt, hashes)


async def verify(session: AsyncSession, chain_id: UUID | None = None) -> Verification:
    """Compute a chain anew, or every chain, as of one instant; its session is one that nothing was asked of before.

    Two statements, however many the chains are, and the memory of a page of entries and of every chain's end.
    """
    await session.connection(execution_options={"isolation_level": "REPEATABLE READ"})
    ends = await repository.find_ends(session, chain_id)
    check = TrailCheck()
    async for page in repository.pages_of_entries(session, chain_id):
        # Hashing a million entries takes a minute, and other requests do not wait for it.
        await asyncio.to_thread(check.follow, page)
    return check.verify(ends)
