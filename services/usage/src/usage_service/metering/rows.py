"""A record of `usage.events.v1` becomes a row, or a reason why it cannot."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Annotated, Any, Final, Protocol

import msgspec
from aiokafka import ConsumerRecord

from usage_service.domain.corrections import CORRECTION
from usage_service.domain.errors import InvalidEvent
from usage_service.domain.event_checks import MAX_ID, MAX_SOURCE, MAX_TYPE, has_nul
from usage_service.domain.identity import digest_of, identity_of
from usage_service.domain.instants import DAY, EPOCH, UNIX_EPOCH_MILLISECONDS, microseconds
from usage_service.domain.quantities import canonical_number

_BACKSLASH, _NUL = b"\\", b"\\u0000"
# A record's key begins with its tenant's id; a bucket may follow.
TENANT_LENGTH: Final = 36
# A day costs a partition, so the days that can be metered have two ends; 0 is the first one.
_TIMES_END: Final = microseconds(datetime(2200, 1, 1, tzinfo=UTC))
FUTURE: Final = 3_600_000_000
"""How far an event may be ahead of its receipt: ten minutes for who sends it, the rest for clocks that differ."""


class _Stored(msgspec.Struct, gc=False):
    """The parts of the CloudEvent that the worker uses."""

    id: Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_ID)]
    source: Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_SOURCE)]
    type: Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_TYPE)]
    subject: str
    time: datetime
    data: msgspec.Raw = msgspec.Raw(b"{}")


class EventRow(msgspec.Struct, gc=False):
    """An event on its way into the database; times are microseconds and `day` a day number (`domain.instants`).

    `key` is what makes it the same event as another, whatever the time: tenant and identity.
    """

    key: bytes
    tenant: bytes
    identity: bytes
    time: int
    day: int
    received: int
    partition: int
    offset: int
    digest: int
    source: str
    id: str
    type: str
    text: bytes
    data: Mapping[str, Any]


class Placed(Protocol):
    """What is known of the keys of a tenant whose events lie under several."""

    def has_key(self, key: bytes, subject: str, source: str, event_id: str) -> bool:
        """Whether an event may have this key."""


class Position(msgspec.Struct, frozen=True, gc=False):
    """Where a record stands, and when the broker got it (microseconds)."""

    partition: int
    offset: int
    received: int


_decode = msgspec.json.Decoder(_Stored).decode
decode_data = msgspec.json.Decoder(dict[str, Any], float_hook=canonical_number).decode
_decode_any = msgspec.json.Decoder(float_hook=canonical_number).decode
_UNREADABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, TypeError, ValueError, OverflowError)


def read_rows(
    records: Iterable[ConsumerRecord[bytes, bytes]], tenants: Mapping[str, bytes], spreads: Mapping[str, Placed]
) -> tuple[list[EventRow], list[ConsumerRecord[bytes, bytes]]]:
    """The rows of all records that are events of tenants in `tenants`, and the other records, for a careful look.

    Of tenants in `spreads` the key is as these say, of all others their id.

    One loop without calls of ours: it runs for every event and decides the worker's speed.
    """
    rows: list[EventRow] = []
    others: list[ConsumerRecord[bytes, bytes]] = []
    for record in records:
        value = record.value
        try:
            event = _decode(value)
            tenant = tenants[event.subject]
            subject = event.subject
            spread = spreads.get(subject)
            if spread is None:
                keyed = record.key == subject.encode()
            else:
                keyed = spread.has_key(record.key, subject, event.source, event.id)
            text = bytes(event.data)
            data = decode_data(text)
            elapsed = event.time - EPOCH
        except (KeyError, *_UNREADABLE):
            others.append(record)
            continue
        time = (elapsed.days * 86_400 + elapsed.seconds) * 1_000_000 + elapsed.microseconds
        received = (record.timestamp - UNIX_EPOCH_MILLISECONDS) * 1_000
        if (
            (_BACKSLASH in value and _NUL in value)
            or not keyed
            or event.type == CORRECTION
            or not 0 <= time < _TIMES_END
            or time > received + FUTURE
        ):
            others.append(record)
            continue
        identity = identity_of(event.source, event.id)
        rows.append(
            EventRow(
                tenant + identity,
                tenant,
                identity,
                time,
                time // DAY,
                received,
                record.partition,
                record.offset,
                digest_of(event.type, time, data),
                event.source,
                event.id,
                event.type,
                text,
                data,
            )
        )
    return rows, others


def decode_event(value: bytes | None) -> _Stored:
    """Raises InvalidEvent for what the ingest would not have let through."""
    if value is None:
        raise InvalidEvent("", "the record has no value")
    try:
        event = _decode(value)
        # The six characters may also be an escaped backslash and plain text: only decoded strings can tell.
        nul = _NUL in value and has_nul(_decode_any(value))
    except _UNREADABLE as error:
        raise InvalidEvent("", f"not a usage event: {error}") from None
    if nul:
        raise InvalidEvent("", "a string contains NUL")
    return event


def row_of(event: _Stored, tenant: bytes, position: Position) -> EventRow:
    """The row of a decoded event of a known tenant. Raises InvalidEvent when its data or time cannot be stored."""
    text = bytes(event.data)
    if text == b"null":
        text = b"{}"
    try:
        data = decode_data(text)
        time = microseconds(event.time)
    except _UNREADABLE as error:
        raise InvalidEvent("data", f"not a usage event: {error}") from None
    if not 0 <= time < _TIMES_END:
        raise InvalidEvent("time", "lies before 2000 or after 2199")
    identity = identity_of(event.source, event.id)
    return EventRow(
        tenant + identity,
        tenant,
        identity,
        time,
        time // DAY,
        position.received,
        position.partition,
        position.offset,
        digest_of(event.type, time, data),
        event.source,
        event.id,
        event.type,
        text,
        data,
    )
