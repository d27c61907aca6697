"""Use cases of reading the trail. They change nothing."""

import hashlib
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from tenant_service.audit import repository
from tenant_service.domain.audit_chain import Break, find_break


@dataclass(frozen=True, slots=True)
class BrokenChain:
    """A chain that does not hold, and the first entry that shows it."""

    chain_id: UUID
    first: Break


@dataclass(frozen=True, slots=True)
class Verification:
    """What looking at chains gave. `digest` covers all their ends: kept elsewhere, it shows a history written anew."""

    chains: int
    entries: int
    broken: tuple[BrokenChain, ...]
    digest: bytes


async def verify(session: AsyncSession, chain_id: UUID | None = None) -> Verification:
    """Compute a chain anew, or every chain, as of one instant; its session is one that nothing was asked of before.

    The digest is the SHA-256 of chain id, length as eight bytes and head of every chain, in the order of the ids.
    """
    await session.connection(execution_options={"isolation_level": "REPEATABLE READ"})
    chains = await repository.chain_ids(session) if chain_id is None else [chain_id]
    broken, entries, digest = [], 0, hashlib.sha256()
    for each in chains:
        end = await repository.find_end(session, each)
        found = await find_break(each, repository.stream_entries(session, each), end)
        if found is not None:
            broken.append(BrokenChain(each, found))
        if end is not None:
            entries += end.length
            digest.update(each.bytes + end.length.to_bytes(8, "big") + end.head)
    return Verification(len(chains), entries, tuple(broken), digest.digest())
