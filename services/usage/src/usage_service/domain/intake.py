"""A request's body becomes events for Kafka, or a list of what is wrong with it.

The fast path decodes the whole body into typed structs and rewrites each event with one encode. It takes only bodies in
which nothing is unusual. At the first sign of anything else, and where the body is large, it is split and each event
is tried by itself; what is unusual goes to `event_checks`, which decides and gives the reasons.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any, Final, Literal

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
    within_bytes,
)
from usage_service.domain.field_rules import FieldRules
from usage_service.domain.quantities import MAX_DIGITS
from usage_service.domain.splitting import Form, is_array, lines, split


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

_FEW_BYTES: Final = 64 << 10
_MANY_VALUES: Final = 32_768
"""Some hundred times what an event has; each may cost a microsecond."""


def is_long(body: bytes) -> bool:
    """Whether reading the body would hold up everybody else: some 100 ms for 512 KiB, if all of it is fractions."""
    return len(body) > MAX_EVENT_BYTES or (len(body) > _FEW_BYTES and body.count(b",") > _MANY_VALUES)


def read_body(
    body: bytes, form: Form, resolve: Resolver, *, max_events: int, fields: FieldRules | None = None
) -> Intake:
    """All events of a body. Nothing is sent: the caller decides whether refusals refuse the whole.

    What it takes beside a few times the body is what one event, or a body of its size, takes. `fields` are applied to
    whatever leaves this function. Raises MalformedBody (NoEvents where it is only empty) and TooManyEvents.
    """
    if len(body) <= MAX_EVENT_BYTES:
        accepted = _read_fast(body, form, resolve, max_events, fields)
        if accepted is not None:
            return Intake(accepted, [])
    intake = Intake([], [])
    for index, raw in enumerate(split(body, form, max_events)):
        try:
            intake.accepted.append(_read_one(raw, resolve, fields))
        except InvalidEvent as error:
            kept = raw if error.kind == "too-old" else b""
            # The frames of its traceback hold the body, and this one holds it: a circle.
            error.__traceback__ = error.__context__ = None
            intake.refused.append(Refusal(index, error, treated(kept, resolve, fields) if kept and fields else kept))
    return intake


def _read_one(raw: bytes, resolve: Resolver, fields: FieldRules | None) -> Accepted:
    """One event of a body that is large, or in which something is unusual."""
    within_bytes(raw)
    fast = _read_fast(raw, Form.SINGLE, resolve, 1, fields)
    return check_event(raw, resolve, fields) if fast is None else fast[0]


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
        return [_one.decode(line) for line in lines(body)]
    if is_array(body, form):
        return _many.decode(body)
    return [_one.decode(body)]


def _accept(event: _Event, resolve: Resolver, fields: FieldRules | None) -> Accepted:
    if event.type == CORRECTION:
        raise TypeError
    route = resolve(event.subject)
    if route.refusal is not None:
        raise TypeError
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
