"""Taking a person's values out of dead letters and corrections, which quote events."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final
from uuid import UUID

import msgspec
from sqlalchemy import Row, text
from sqlalchemy.ext.asyncio import AsyncConnection

from usage_service.domain.erasing import Erasing
from usage_service.domain.event_checks import encode_event
from usage_service.metering.dead_letters import NO_TENANT

LETTERS: Final = "dead_letter"
CORRECTIONS: Final = "correction"

_NIL: Final = UUID(int=0)
_PAGE: Final = 200

# What nobody could be found for may be of this tenant too, where it names it.
_LETTERS = text(
    """
    SELECT tenant_id, id, reason, source, event_id, payload FROM pool.dead_letter
     WHERE id > :after AND (tenant_id = :tenant
           OR (tenant_id = :nobody AND position(convert_to(CAST(:named AS text), 'UTF8') IN payload) > 0))
     ORDER BY id LIMIT :limit FOR UPDATE
    """
)
_CHANGE_LETTER = text(
    """
    UPDATE pool.dead_letter SET reason = :reason, source = :source, event_id = :event_id, payload = :payload
     WHERE tenant_id = :tenant AND id = :id
    """
)
_CORRECTIONS = text(
    """
    SELECT identity, id, source, event_id, replacement_source, replacement_id, reason FROM pool.correction
     WHERE tenant_id = :tenant AND (reason IS NOT NULL OR :attributes) FOR UPDATE
    """
)
_CHANGE_CORRECTION = text(
    """
    UPDATE pool.correction
       SET source = :source, event_id = :event_id, replacement_source = :replacement_source,
           replacement_id = :replacement_id, reason = :reason
     WHERE tenant_id = :tenant AND identity = :identity AND id = :id
    """
)


async def erase_letters(
    connection: AsyncConnection, erasing: Erasing, tenant_id: UUID, *, after: UUID | None
) -> tuple[int, UUID | None]:
    """Erases from a page of letters behind `after`: how many changed, and the last one, None where there was no more.

    The caller commits.
    """
    asked = {
        "after": after or _NIL,
        "tenant": tenant_id,
        "nobody": NO_TENANT,
        "named": str(tenant_id),
        "limit": _PAGE,
    }
    letters: Sequence[Row[Any]] = (await connection.execute(_LETTERS, asked)).all()
    changed = 0
    for letter in letters:
        before = {name: getattr(letter, name) for name in ("reason", "source", "event_id", "payload")}
        erased = {
            "reason": erasing.prose(letter.reason),
            "source": _attribute(erasing, letter.source),
            "event_id": _attribute(erasing, letter.event_id),
            "payload": _payload(erasing, bytes(letter.payload)),
        }
        if erased != before:
            await connection.execute(_CHANGE_LETTER, {**erased, "tenant": letter.tenant_id, "id": letter.id})
            changed += 1
    return changed, letters[-1].id if len(letters) == _PAGE else None


async def erase_corrections(connection: AsyncConnection, erasing: Erasing, tenant_id: UUID) -> int:
    """How many corrections quoted a value; their identities stay. The caller commits."""
    changed = 0
    names = ("source", "event_id", "replacement_source", "replacement_id")
    for row in await connection.execute(_CORRECTIONS, {"tenant": tenant_id, "attributes": erasing.attributes}):
        erased = {name: _attribute(erasing, getattr(row, name)) for name in names}
        erased["reason"] = None if row.reason is None else erasing.prose(row.reason)
        if erased != {name: getattr(row, name) for name in (*names, "reason")}:
            key = {"tenant": tenant_id, "identity": row.identity, "id": row.id}
            await connection.execute(_CHANGE_CORRECTION, {**erased, **key})
            changed += 1
    return changed


def _attribute(erasing: Erasing, text_: str | None) -> str | None:
    return None if text_ is None else erasing.attribute(text_)


def _payload(erasing: Erasing, payload: bytes) -> bytes:
    """An event, or what nobody could read: of that, every place where a value stands in plain text."""
    try:
        event = msgspec.json.decode(payload, type=dict[str, msgspec.Raw])
        erased = {name: msgspec.Raw(text_) for name, text_ in _members(erasing, event)}
        return encode_event(event | erased) if erased else payload
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, ValueError):
        return erasing.plain(payload)


def _members(erasing: Erasing, event: Mapping[str, msgspec.Raw]) -> Iterator[tuple[str, bytes]]:
    """The members of an event that change, as JSON."""
    for name in {"source", "id"} & event.keys():
        known = msgspec.json.decode(event[name], type=str)
        if (erased := erasing.attribute(known)) != known:
            yield name, encode_event(erased)
    if "data" in event and (found := erasing.data(bytes(event["data"]).decode())).count:
        yield "data", found.text.encode()
