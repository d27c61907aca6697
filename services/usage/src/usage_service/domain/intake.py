"""A request's body becomes events for Kafka, or a list of what is wrong with it.

The fast path decodes the whole body into typed structs and rewrites each event with one encode. It takes only bodies in
which nothing is unusual; at the first sign of anything else the whole body goes to `event_checks`, one event at a time,
which decides and gives the reasons.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum
from typing import Annotated, Any, Literal, TypeVar

import msgspec

from usage_service.domain.corrections import CORRECTION
from usage_service.domain.errors import InvalidEvent
from usage_service.domain.event_checks import (
    MAX_EVENT_BYTES,
    MAX_ID,
    MAX_NESTING,
    MAX_SOURCE,
    MAX_SUBJECT,
    MAX_TYPE,
    Accepted,
    Resolver,
    check_event,
    encode_event,
    may_nest_deeply,
    number,
    treated,
)
from usage_service.domain.field_rules import FieldRules
from usage_service.domain.quantities import MAX_DIGITS

T = TypeVar("T")


class Form(Enum):
    """How a body holds its events."""

    SINGLE = "single"
    ARRAY = "array"
    EITHER = "either"
    LINES = "lines"


class MalformedBody(ValueError):
    """The body as a whole cannot be split into events."""


class NoEvents(MalformedBody):
    """The body is well formed and empty."""


class TooManyEvents(ValueError):
    """More events than one request may hold."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """`raw` is there only where nothing but the age is wrong, so that the event can be kept."""

    index: int
    error: InvalidEvent
    raw: bytes = b""


@dataclass(frozen=True, slots=True)
class Intake:
    """What a body held: events in order, and refusals in order."""

    accepted: list[Accepted]
    refused: list[Refusal]

    def without(self, judge: Callable[[Accepted], InvalidEvent | None]) -> Intake:
        """The same body, with the accepted events refused for which `judge` has a reason."""
        taken = {each.index for each in self.refused}
        indices = (index for index in range(len(self.accepted) + len(taken)) if index not in taken)
        kept: list[Accepted] = []
        refusals = list(self.refused)
        for index, event in zip(indices, self.accepted, strict=True):
            refusal = judge(event)
            if refusal is None:
                kept.append(event)
            else:
                refusals.append(Refusal(index, refusal))
        return Intake(kept, sorted(refusals, key=lambda each: each.index))


class _Event(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True, gc=False):
    specversion: Literal["1.0"]
    id: Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_ID)]
    source: Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_SOURCE)]
    type: Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_TYPE)]
    subject: Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_SUBJECT)]
    time: datetime | None = None
    data: dict[str, Any] | None = None
    datacontenttype: Literal["application/json"] | None = None
    dataschema: str | None = None


_one = msgspec.json.Decoder(_Event, float_hook=number)
_many = msgspec.json.Decoder(list[_Event], float_hook=number)
_raw = msgspec.json.Decoder(msgspec.Raw)
_raws = msgspec.json.Decoder(list[msgspec.Raw])

# Signs of what the typed decoder would get wrong, found in the raw bytes: a NUL in a string, an integer of more digits
# than a quantity may have, and a time with more than six digits of a second, which msgspec rounds and we cut; also
# where its digits, colons or point are written as escapes.
_NUL = b"\\u0000"
_DIGITS = bytes.maketrans(b"123456789", b"000000000")
_LONG_RUN = b"0" * (MAX_DIGITS + 1)
# An event with fewer bytes is neither too large nor nested too deeply: two brackets a level, and its attributes.
_MANY_BYTES = 2 * MAX_NESTING + 120
_TOO_PRECISE = re.compile(rb":\d\d:\d\d\.\d{7}")
_ESCAPE = b"\\u00"
_ESCAPED_TIME = re.compile(rb"\\u00(?:3[0-9aA]|2[eE])")

# Every escape of a JSON text from left to right, so that an escaped backslash does not seem to begin one.
_ESCAPES = re.compile(
    rb"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|(?P<lone>u[dD][89a-fA-F][0-9a-fA-F]{2})|.)",
    re.DOTALL,
)


def read_body(
    body: bytes, form: Form, resolve: Resolver, *, max_events: int, fields: FieldRules | None = None
) -> Intake:
    """All events of a body. Nothing is sent: the caller decides whether refusals refuse the whole.

    `fields` are applied to whatever leaves this function.
    Raises MalformedBody (NoEvents where it is only empty) and TooManyEvents.
    """
    accepted = _read_fast(body, form, resolve, max_events, fields)
    if accepted is not None:
        return Intake(accepted, [])
    intake = Intake([], [])
    for index, raw in enumerate(_split(body, form, max_events)):
        try:
            intake.accepted.append(check_event(raw, resolve, fields))
        except InvalidEvent as error:
            kept = raw if error.kind == "too-old" else b""
            intake.refused.append(Refusal(index, error, treated(kept, resolve, fields) if kept and fields else kept))
    return intake


def _read_fast(
    body: bytes, form: Form, resolve: Resolver, max_events: int, fields: FieldRules | None = None
) -> list[Accepted] | None:
    """None where a careful look is needed."""
    if _NUL in body or _TOO_PRECISE.search(body) or _LONG_RUN in body.translate(_DIGITS):
        return None
    if _ESCAPE in body and _ESCAPED_TIME.search(body):
        return None
    try:
        events = _decode(body, form)
        if not 0 < len(events) <= max_events:
            return None
        return [_accept(event, resolve, fields) for event in events]
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, TypeError, OverflowError, InvalidEvent):
        return None


def _decode(body: bytes, form: Form) -> list[_Event]:
    if form is Form.LINES:
        return _one.decode_lines(body)
    if form is Form.ARRAY or (form is Form.EITHER and body.lstrip()[:1] == b"["):
        return _many.decode(body)
    return [_one.decode(body)]


def _accept(event: _Event, resolve: Resolver, fields: FieldRules | None) -> Accepted:
    if event.type == CORRECTION:
        raise TypeError
    route = resolve(event.subject)
    if route.refusal is not None:
        raise route.refusal
    time = event.time
    if time is None:
        time = event.time = route.bounds.now
    else:
        if time.tzinfo is not UTC:
            if time.tzinfo is None:
                raise TypeError
            time = event.time = time.astimezone(UTC)
        bounds = route.bounds
        if not bounds.earliest <= time <= bounds.latest:
            raise TypeError
    event.subject = route.subject
    if fields is not None:
        fields.apply(event.type, route.subject, event.data)
    value = encode_event(event)
    if len(value) > _MANY_BYTES and (len(value) > MAX_EVENT_BYTES or may_nest_deeply(value)):
        raise TypeError
    key = route.key if route.spread is None else route.spread(event.source, event.id)
    return Accepted(key, value, event.id, time)


def _split(body: bytes, form: Form, max_events: int) -> list[bytes]:
    if form is Form.LINES:
        raws = [line for line in body.split(b"\n") if line.strip()]
    elif form is Form.ARRAY or (form is Form.EITHER and body.lstrip()[:1] == b"["):
        raws = [bytes(raw) for raw in _decode_raw(body, _raws, "not a JSON array of events")]
    else:
        raws = [bytes(_decode_raw(body, _raw, "not valid JSON"))]
    if len(raws) > max_events:
        raise TooManyEvents
    if not raws:
        raise NoEvents("the body holds no event")
    return raws


def _decode_raw(body: bytes, decoder: msgspec.json.Decoder[T], what: str) -> T:
    """The body in parts. Raises MalformedBody.

    A lone surrogate, which the decoder refuses with the whole body, becomes a NUL: it is as unstorable, and so it is
    the event that holds it which is refused, by its index.
    """
    try:
        return decoder.decode(body)
    except (msgspec.DecodeError, RecursionError) as error:
        reason = f"{what}: {error}"
    try:
        return decoder.decode(_ESCAPES.sub(_without_lone_surrogate, body))
    except (msgspec.DecodeError, RecursionError):
        raise MalformedBody(reason) from None


def _without_lone_surrogate(escape: re.Match[bytes]) -> bytes:
    return escape[0] if escape["lone"] is None else _NUL
