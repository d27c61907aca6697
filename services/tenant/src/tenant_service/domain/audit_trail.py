"""Whether a trail holds: many chains, each computed anew, and a digest over the ends of all."""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from uuid import UUID

from tenant_service.domain.audit_chain import Break, ChainCheck, End, Link


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


class TrailCheck:
    """Follows any number of chains. Their links may come mixed, as long as those of each come in order.

    It keeps a few words of each chain, and nothing of an entry that it has seen.
    """

    def __init__(self) -> None:
        self._chains: dict[UUID, ChainCheck] = {}

    def follow(self, links: Iterable[Link]) -> None:
        for each in links:
            chain_id = each.entry.chain_id
            check = self._chains.get(chain_id)
            if check is None:
                check = self._chains[chain_id] = ChainCheck(chain_id)
            check.follow(each)

    def verify(self, ends: Mapping[UUID, End]) -> Verification:
        """Compare what was followed with what the chains say of themselves."""
        broken = []
        for chain_id in sorted(self._chains.keys() | ends.keys()):
            check = self._chains.get(chain_id) or ChainCheck(chain_id)
            first = check.compare(ends.get(chain_id))
            if first is not None:
                broken.append(BrokenChain(chain_id, first))
        return self._verification(ends, broken)

    def verify_alone(self) -> Verification:
        """Nothing else is known of the chains: each is taken to end with its last link."""
        broken = [
            BrokenChain(chain_id, check.broken)
            for chain_id, check in sorted(self._chains.items())
            if check.broken is not None
        ]
        return self._verification({chain_id: check.end for chain_id, check in self._chains.items()}, broken)

    def _verification(self, ends: Mapping[UUID, End], broken: Iterable[BrokenChain]) -> Verification:
        """The digest is the SHA-256 of chain id, length as eight bytes and head, in the order of the ids."""
        digest = hashlib.sha256()
        for chain_id in sorted(ends):
            end = ends[chain_id]
            digest.update(chain_id.bytes + end.length.to_bytes(8, "big") + end.head)
        return Verification(
            chains=len(self._chains.keys() | ends.keys()),
            entries=sum(end.length for end in ends.values()),
            broken=tuple(broken),
            digest=digest.digest(),
        )
