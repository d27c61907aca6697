"""The hash chain of the audit trail: what an entry's hashes are made of, and what is wrong with a chain.

    content hash   = SHA-256 of the canonical JSON of the entry's content
    link of n      = SHA-256 of (link of n - 1, n as eight bytes, content hash); before the first: the chain id's bytes

Canonical JSON has sorted keys, no spaces, UTF-8 and the numbers that PostgreSQL's jsonb gives back, so whoever holds an
export can compute it anew. The content hash stands apart from the link: content that has to be erased can go, and its
hash still proves the entries around it. What took its place is proven by a later entry of the chain, an erasure, which
names the positions and has the hashes of what stands there since.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

CONTENT_VERSION = 1
ERASURE = "audit.erase"
REPLACED = "entries"
"""In the detail of an erasure: content hashes in hex, by position."""


@dataclass(frozen=True, slots=True)
class Entry:
    """What is written of one deed; the chain gives it its position and hashes."""

    id: UUID
    chain_id: UUID
    occurred_at: datetime
    actor: str
    actor_kind: str
    credential_id: str
    impersonator: str | None
    action: str
    target: str
    detail: Mapping[str, Any]
    request_id: str | None
    context: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Link:
    """An entry in its place in a chain."""

    entry: Entry
    position: int
    content_hash: bytes
    hash: bytes


@dataclass(frozen=True, slots=True)
class End:
    """What a chain says of itself: how many entries it has, and the link of the last."""

    length: int
    head: bytes


@dataclass(frozen=True, slots=True)
class Break:
    """The first entry of a chain that does not hold, and why."""

    position: int
    entry_id: UUID | None
    reason: str


def canonical(value: object) -> str:
    """`value` as canonical JSON. Raises `ValueError` and `TypeError` for what is no JSON."""
    plain = json.loads(json.dumps(value, allow_nan=False), parse_float=_number)
    return json.dumps(plain, ensure_ascii=False, allow_nan=False, sort_keys=True, separators=(",", ":"))


def content_of(entry: Entry) -> dict[str, Any]:
    """What the content hash covers."""
    return {
        "version": CONTENT_VERSION,
        "id": str(entry.id),
        "chain_id": str(entry.chain_id),
        "occurred_at": entry.occurred_at.astimezone(UTC).isoformat(timespec="microseconds"),
        "actor": entry.actor,
        "actor_kind": entry.actor_kind,
        "credential_id": entry.credential_id,
        "impersonator": entry.impersonator,
        "action": entry.action,
        "target": entry.target,
        "detail": dict(entry.detail),
        "request_id": entry.request_id,
        "context": dict(entry.context),
    }


def content_hash(entry: Entry) -> bytes:
    return hashlib.sha256(canonical(content_of(entry)).encode()).digest()


def link(previous: bytes, position: int, content: bytes) -> bytes:
    """The link at `position` (from 1), after `previous`: the link before it, or `before_the_first`."""
    return hashlib.sha256(previous + position.to_bytes(8, "big") + content).digest()


def before_the_first(chain_id: UUID) -> bytes:
    return chain_id.bytes


class ChainCheck:
    """Follows a chain link by link, in the order of their positions, and remembers the first that is wrong.

    What comes after a break is counted and not looked at. Only a copy of the head that is kept elsewhere shows that
    everything, the end included, was written anew.
    """

    def __init__(self, chain_id: UUID) -> None:
        self._fault: Break | None = None
        self._changed: dict[int, tuple[str, Break]] = {}  # by position: what stands there, until an erasure says so
        self._length = 0
        self._head = before_the_first(chain_id)
        self._last: UUID | None = None

    @property
    def end(self) -> End:
        """Where the chain ends as far as it was followed."""
        return End(self._length, self._head)

    @property
    def broken(self) -> Break | None:
        """The first entry that does not hold, as far as the chain was followed."""
        found = [each for _, each in self._changed.values()]
        if self._fault is not None:
            found.append(self._fault)
        return min(found, key=lambda each: each.position, default=None)

    def follow(self, each: Link) -> None:
        if self._fault is None:
            self._fault = self._look(each)
        self._length, self._head, self._last = self._length + 1, each.hash, each.entry.id

    def compare(self, known: End | None) -> Break | None:
        """The first thing wrong with the chain, whose end is told apart from its links; None: it holds.

        `known` None is a chain that nothing is known of: it may have no entries.
        """
        if self.broken is not None:
            return self.broken
        position, previous = self._length, self._head
        known = End(0, previous) if known is None else known
        if position < known.length:
            return Break(position + 1, None, "the entry is missing: the chain is longer")
        if position > known.length or known.head != previous:
            return Break(position, self._last, "the chain does not end with this entry")
        return None

    def _look(self, each: Link) -> Break | None:
        previous, expected = self._head, self._length + 1
        if each.position != expected:
            return Break(expected, None, "the entry is missing")
        content = content_hash(each.entry)
        if content != each.content_hash:
            wrong = Break(each.position, each.entry.id, "the content is not what was hashed")
            self._changed[each.position] = (content.hex(), wrong)
        elif each.entry.action == ERASURE:
            self._account_for(each.entry.detail.get(REPLACED))
        if link(previous, each.position, each.content_hash) != each.hash:
            return Break(each.position, each.entry.id, "the entry does not follow from the one before it")
        return None

    def _account_for(self, replaced: object) -> None:
        if isinstance(replaced, dict):
            for position, (content, _) in list(self._changed.items()):
                if replaced.get(str(position)) == content:
                    del self._changed[position]


def _number(text: str) -> float | int:
    # jsonb knows no negative zero, and spells out what repr writes with an exponent (from 1e16 on): that comes back as
    # a whole number.
    number = float(text)
    if number == 0:
        return 0.0
    return int(number) if abs(number) >= 1e16 else number
