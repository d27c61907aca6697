"""One event at a time: what exactly is wrong with it, or what it becomes.

The careful twin of `intake`: it accepts and refuses the same events and gives the same bytes (a property test holds the
two together), and it alone knows CloudEvents extension attributes, times with more than six digits and odd numbers.
Where an object names a member twice, the last one counts, at every level.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import msgspec

from usage_service.domain.corrections import CORRECTION
from usage_service.domain.errors import InvalidEvent, InvalidQuantity
from usage_service.domain.field_rules import FieldRules
from usage_service.domain.instants import cut_to_microseconds
from usage_service.domain.quantities import check_numbers, decimal_of

MAX_ID, MAX_SOURCE, MAX_TYPE, MAX_SUBJECT = 256, 512, 255, 128
MAX_EVENT_BYTES = 512 * 1024  # of an event as it comes and as it is stored; Kafka's own limit is 1 MiB a message
MAX_NESTING = 100  # objects and arrays inside of one another, the event itself included
MEDIA_TYPE = "application/json"

_TOO_DEEP = f"nested too deeply; {MAX_NESTING} levels are the most"
_TEXTS = (("id", MAX_ID), ("source", MAX_SOURCE), ("type", MAX_TYPE), ("subject", MAX_SUBJECT))
_KNOWN = frozenset({"specversion", "id", "source", "type", "subject", "time", "data", "datacontenttype", "dataschema"})
_EXTENSION = re.compile(r"[a-z0-9]{1,20}")
# JSON and what is built on it (RFC 6839); a charset can only be said as what JSON is in any case.
_JSON_TYPE = re.compile(
    r"application/(?:[a-z0-9!#$&^_.-]+\+)?json[ \t]*(?:;[ \t]*charset=(?:utf-?8|\"utf-?8\")[ \t]*)?", re.IGNORECASE
)


@dataclass(slots=True)
class Bounds:
    """The receipt time and the inclusive bounds of an event's time, by a tenant's clock; shared by tenants alike."""

    now: datetime
    earliest: datetime
    latest: datetime


@dataclass(frozen=True, slots=True)
class SubjectRefusal:
    """Why the events of a subject are refused. No exception: a route is kept, and each raise would add its frames."""

    reason: str
    kind: str

    def error(self) -> InvalidEvent:
        return InvalidEvent("subject", self.reason, kind=self.kind)


@dataclass(frozen=True, slots=True)
class Route:
    """Where a subject's events go and which times they may have; or why they are refused.

    `subject` is the tenant's UUID as text, `key` the record's key where the tenant has one only. `spread` makes the key
    of an event of any other tenant, from its source and id.
    """

    subject: str
    key: bytes
    bounds: Bounds
    refusal: SubjectRefusal | None = None
    spread: Callable[[str, str], bytes] | None = None

    def key_of(self, source: str, event_id: str) -> bytes:
        """The key of the record of this event, or of a correction that cancels it: copies of both meet."""
        return self.key if self.spread is None else self.spread(source, event_id)


Resolver = Callable[[str], Route]
"""From a subject as the client wrote it (UUID in any case, or external id); the same subject gives the same answer."""


class Accepted(msgspec.Struct, frozen=True, gc=False):
    """An event as it will stand in `usage.events.v1`. (A struct, because one is made per event.)"""

    key: bytes
    value: bytes
    id: str
    time: datetime


def number(text: str) -> Decimal:
    """The decoder's hook for numbers with a fraction or an exponent: never a float."""
    return decimal_of(text)


_decode = msgspec.json.Decoder(float_hook=number).decode
encode_event = msgspec.json.Encoder(decimal_format="number").encode


def check_event(raw: bytes, resolve: Resolver, fields: FieldRules | None = None) -> Accepted:
    """The event as it will be stored. Raises InvalidEvent with the first thing that is wrong."""
    event = _object(raw)
    if event.get("specversion") != "1.0":
        raise InvalidEvent("specversion", 'must be "1.0"')
    event_id, source, kind, subject = [check_text(event, name, longest) for name, longest in _TEXTS]
    if kind == CORRECTION:
        raise InvalidEvent("type", "is kept for corrections; send them to /v1/events/correct")
    _check_data(event)
    for name, value in event.items():
        if name not in _KNOWN and value is not None:
            _check_extension(name, value)
    route = resolve(subject)
    if route.refusal is not None:
        raise route.refusal.error()
    time = _time(event.get("time"), route)
    if fields is not None:
        fields.apply(kind, route.subject, event.get("data"))
    stored: dict[str, object] = {"specversion": "1.0", "id": event_id, "source": source, "type": kind}
    stored |= {"subject": route.subject, "time": time}
    stored |= {name: event[name] for name in ("data", "datacontenttype", "dataschema") if event.get(name) is not None}
    # A null is an attribute that is not there (CloudEvents' JSON format, 2.2).
    stored |= {name: value for name, value in event.items() if name not in _KNOWN and value is not None}
    value = encode_event(stored)
    within_bytes(value)
    return Accepted(route.key_of(source, event_id), value, event_id, time)


def within_bytes(text: bytes) -> None:
    """Returns where an event, as it came or as it is stored, is not too large. Raises InvalidEvent."""
    if len(text) > MAX_EVENT_BYTES:
        raise InvalidEvent("", f"an event has at most {MAX_EVENT_BYTES:,} bytes", kind="too-large")


def treated(raw: bytes, resolve: Resolver, fields: FieldRules) -> bytes:
    """The text of an event that is refused for its age alone, with its fields treated as if it were not."""
    event = _object(raw)
    fields.apply(
        check_text(event, "type", MAX_TYPE),
        resolve(check_text(event, "subject", MAX_SUBJECT)).subject,
        event.get("data"),
    )
    return encode_event(event)


def may_nest_deeply(text: bytes) -> bool:
    """Whether a JSON text has enough brackets for it, counted without reading it."""
    return len(text) > 2 * MAX_NESTING and text.count(b"{") + text.count(b"[") > MAX_NESTING


def is_json_type(media_type: str) -> bool:
    """Whether a Content-Type, or a `datacontenttype`, says JSON in UTF-8."""
    return _JSON_TYPE.fullmatch(media_type) is not None


def _object(raw: bytes) -> dict[str, object]:
    event = decode_document(raw)
    if not isinstance(event, dict):
        raise InvalidEvent("", "an event is a JSON object")
    return event


def decode_document(raw: bytes) -> Any:
    """A JSON text of events, in which every number is exact and every string can be stored. Raises InvalidEvent."""
    try:
        document = _decode(raw)
        check_numbers(document)
    except UnicodeDecodeError:
        raise InvalidEvent("", "not UTF-8") from None
    except RecursionError:
        raise InvalidEvent("", _TOO_DEEP) from None
    except msgspec.ValidationError as error:
        # The hook's reason; msgspec adds the place in its own notation.
        raise InvalidEvent("data", str(error).split(" - at ", maxsplit=1)[0]) from None
    except msgspec.DecodeError as error:
        raise InvalidEvent("", f"not valid JSON: {_json_reason(str(error))}") from None
    except InvalidQuantity as error:
        raise InvalidEvent("data", str(error)) from None
    if may_nest_deeply(raw) and _nesting(document) > MAX_NESTING:
        raise InvalidEvent("", _TOO_DEEP)
    if b"\\u0000" in raw and has_nul(document):
        raise InvalidEvent("", "a string contains NUL (\\u0000) or a lone surrogate")
    return document


def _nesting(document: object) -> int:
    """How many objects and arrays lie inside of one another. A loop: what is measured may be deeper than the stack."""
    depth, level = 0, [document]
    while level := [each for each in level if isinstance(each, dict | list)]:
        depth += 1
        level = [inner for each in level for inner in (each.values() if isinstance(each, dict) else each)]
    return depth


def _json_reason(text: str) -> str:
    if "surrogate" in text or text == "Input data was truncated":
        return "a string is cut off or has a lone surrogate"
    return text.removeprefix("JSON is malformed: ")


def has_nul(value: object) -> bool:
    """Whether any string of a decoded document, names of members included, contains NUL."""
    if isinstance(value, str):
        return "\0" in value
    if isinstance(value, dict):
        return any("\0" in name or has_nul(member) for name, member in value.items())
    return isinstance(value, list) and any(has_nul(member) for member in value)


def check_text(event: dict[str, object], name: str, longest: int) -> str:
    """The text of an attribute. Raises InvalidEvent."""
    value = event.get(name)
    if value is None:
        raise InvalidEvent(name, "is required")
    if not isinstance(value, str) or not value:
        raise InvalidEvent(name, "must be a text that is not empty")
    if len(value) > longest:
        raise InvalidEvent(name, f"has at most {longest} characters")
    return value


def _check_data(event: dict[str, object]) -> None:
    if "data_base64" in event:
        raise InvalidEvent("data_base64", "binary data cannot be metered; send data as a JSON object")
    if event.get("data") is not None and not isinstance(event["data"], dict):
        raise InvalidEvent("data", "must be a JSON object")
    media_type = event.get("datacontenttype")
    if media_type is not None and not (isinstance(media_type, str) and is_json_type(media_type)):
        raise InvalidEvent("datacontenttype", f"must be {MEDIA_TYPE}")
    if not isinstance(event.get("dataschema"), str | None):
        raise InvalidEvent("dataschema", "must be a text")


def _check_extension(name: str, value: object) -> None:
    if not _EXTENSION.fullmatch(name):
        raise InvalidEvent(name[:40], "unknown attribute; an extension has 1 to 20 lower-case letters and digits")
    if not isinstance(value, str | bool | int):
        raise InvalidEvent(name, "an extension attribute is a text, a boolean or an integer")


def _time(value: object, route: Route) -> datetime:
    if value is None:
        return route.bounds.now
    time = parse_time(value)
    if time > route.bounds.latest:
        raise InvalidEvent("time", "lies more than 10 minutes in the future", kind="future")
    if time < route.bounds.earliest:
        raise InvalidEvent("time", "is older than events may be", kind="too-old")
    return time


def parse_time(value: object) -> datetime:
    """An RFC 3339 time in UTC, cut to microseconds. Raises InvalidEvent."""
    if not isinstance(value, str):
        raise InvalidEvent("time", "must be an RFC 3339 time")
    try:
        parsed = msgspec.convert(cut_to_microseconds(value), datetime)
        if parsed.tzinfo is None:
            raise InvalidEvent("time", "must say its offset from UTC")
        return parsed.astimezone(UTC)
    except (msgspec.ValidationError, OverflowError):
        raise InvalidEvent("time", "must be an RFC 3339 time") from None
