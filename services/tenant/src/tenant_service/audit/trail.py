"""Writing the trail: an entry for each thing that was done to a tenant or the platform, with the thing itself."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from tenant_service.domain.audit_chain import Entry, before_the_first, canonical, content_hash, link
from tenantry import uuid7

PLATFORM_CHAIN = UUID(int=0)


@dataclass(frozen=True, slots=True)
class Actor:
    """Who acts: what the entry says of them.

    `impersonator` is who really acts where somebody acts as somebody else; `context` says where from.
    """

    subject: str
    kind: str
    credential_id: str
    request_id: str | None = None
    impersonator: str | None = None
    context: Mapping[str, Any] = field(default_factory=dict)


WORKER = Actor(subject="tenant-worker", kind="service", credential_id="")


@dataclass(frozen=True, slots=True)
class Deed:
    """What was done to what. `detail` holds what changed and why, and never a secret."""

    action: str
    target: str
    chain_id: UUID = PLATFORM_CHAIN
    detail: Mapping[str, Any] = field(default_factory=dict)


# The row of a chain is locked until the caller commits, so positions have no gaps and links no forks. Chains are taken
# in the order of their ids: two batches never wait for each other crosswise.
_APPEND = text(
    """
    WITH given AS (
        SELECT * FROM unnest(
            CAST(:chain_ids AS uuid[]), CAST(:ids AS uuid[]), CAST(:actions AS text[]), CAST(:targets AS text[]),
            CAST(:details AS text[]), CAST(:contents AS bytea[])
        ) AS each (chain_id, id, action, target, detail, content_hash)
    ), chain AS (
        INSERT INTO system.audit_chain AS chain (chain_id, length, head)
        SELECT chain_id, 1, sha256(uuid_send(chain_id) || int8send(1) || content_hash) FROM given ORDER BY chain_id
        ON CONFLICT (chain_id) DO UPDATE SET
            length = chain.length + 1,
            head = sha256(
                chain.head || int8send(chain.length + 1)
                || (SELECT given.content_hash FROM given WHERE given.chain_id = chain.chain_id)
            )
        RETURNING chain_id, length, head
    )
    INSERT INTO system.audit_entry (
        chain_id, position, id, occurred_at, actor, actor_kind, credential_id, impersonator,
        action, target, detail, request_id, context, content_hash, hash
    )
    SELECT chain_id, chain.length, given.id, CAST(:occurred_at AS timestamptz), :actor, :actor_kind, :credential_id,
           CAST(:impersonator AS text), given.action, given.target, CAST(given.detail AS jsonb),
           CAST(:request_id AS text), CAST(CAST(:context AS text) AS jsonb), given.content_hash, chain.head
    FROM given JOIN chain USING (chain_id)
    """
)

_BEGIN = text(
    """
    WITH chain AS (
        INSERT INTO system.audit_chain (chain_id, length, head)
        SELECT * FROM unnest(CAST(:new_chains AS uuid[]), CAST(:lengths AS bigint[]), CAST(:heads AS bytea[]))
    )
    INSERT INTO system.audit_entry (
        chain_id, position, id, occurred_at, actor, actor_kind, credential_id, impersonator,
        action, target, detail, request_id, context, content_hash, hash
    )
    SELECT given.chain_id, given.position, given.id, CAST(:occurred_at AS timestamptz), :actor, :actor_kind,
           :credential_id, CAST(:impersonator AS text), given.action, given.target, CAST(given.detail AS jsonb),
           CAST(:request_id AS text), CAST(CAST(:context AS text) AS jsonb), given.content_hash, given.hash
    FROM unnest(
        CAST(:chain_ids AS uuid[]), CAST(:positions AS bigint[]), CAST(:ids AS uuid[]), CAST(:actions AS text[]),
        CAST(:targets AS text[]), CAST(:details AS text[]), CAST(:contents AS bytea[]), CAST(:links AS bytea[])
    ) AS given (chain_id, position, id, action, target, detail, content_hash, hash)
    """
)


async def record(
    session: AsyncSession,
    actor: Actor,
    action: str,
    *,
    target: str,
    now: datetime,
    chain_id: UUID = PLATFORM_CHAIN,
    detail: Mapping[str, Any] | None = None,
) -> None:
    """Append an entry to a tenant's chain (or the platform's) in the caller's transaction: one statement."""
    await record_many(session, actor, [Deed(action, target, chain_id, detail or {})], now=now)


async def record_many(session: AsyncSession, actor: Actor, deeds: Sequence[Deed], *, now: datetime) -> None:
    """Append an entry for each deed, by one statement as long as no two are of one chain; in order in each chain."""
    of_chain: defaultdict[UUID, list[Deed]] = defaultdict(list)
    for deed in deeds:
        of_chain[deed.chain_id].append(deed)
    for turn in range(max(map(len, of_chain.values()), default=0)):
        await _append(session, actor, [each[turn] for each in of_chain.values() if turn < len(each)], now)


async def begin_chains(session: AsyncSession, actor: Actor, deeds: Sequence[Deed], *, now: datetime) -> None:
    """Append as `record_many` does, to chains that this transaction makes: one statement, whatever stands in a chain.

    Nobody else can know of such a chain, so its links are computed here, without a lock.
    """
    entries = [_entry(actor, deed, now) for deed in deeds]
    if not entries:
        return
    ends: dict[UUID, tuple[int, bytes]] = {}
    contents, positions, links = [], [], []
    for entry in entries:
        content = content_hash(entry)
        length, head = ends.get(entry.chain_id, (0, before_the_first(entry.chain_id)))
        ends[entry.chain_id] = end = (length + 1, link(head, length + 1, content))
        contents.append(content)
        positions.append(end[0])
        links.append(end[1])
    await session.execute(
        _BEGIN,
        {
            **_given(actor, entries, contents, now),
            "positions": positions,
            "links": links,
            "new_chains": list(ends),
            "lengths": [length for length, _ in ends.values()],
            "heads": [head for _, head in ends.values()],
        },
    )


async def _append(session: AsyncSession, actor: Actor, deeds: Sequence[Deed], now: datetime) -> None:
    entries = [_entry(actor, deed, now) for deed in deeds]
    await session.execute(_APPEND, _given(actor, entries, [content_hash(entry) for entry in entries], now))


def _entry(actor: Actor, deed: Deed, now: datetime) -> Entry:
    return Entry(
        id=uuid7(),
        chain_id=deed.chain_id,
        occurred_at=now,
        actor=actor.subject,
        actor_kind=actor.kind,
        credential_id=actor.credential_id,
        impersonator=actor.impersonator,
        action=deed.action,
        target=deed.target,
        detail=deed.detail,
        request_id=actor.request_id,
        context=actor.context,
    )


def _given(actor: Actor, entries: Sequence[Entry], contents: Sequence[bytes], now: datetime) -> dict[str, Any]:
    return {
        "chain_ids": [entry.chain_id for entry in entries],
        "ids": [entry.id for entry in entries],
        "actions": [entry.action for entry in entries],
        "targets": [entry.target for entry in entries],
        "details": [canonical(dict(entry.detail)) for entry in entries],
        "contents": list(contents),
        "occurred_at": now,
        "actor": actor.subject,
        "actor_kind": actor.kind,
        "credential_id": actor.credential_id,
        "impersonator": actor.impersonator,
        "request_id": actor.request_id,
        "context": canonical(dict(actor.context)),
    }
