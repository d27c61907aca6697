"""A request's body in parts, one an event, before anything of it becomes an object.

A decoder makes of a few bytes ten times as many, and of a hostile body all of them before it can be asked how many
events it has found. Here a part costs what its bytes do, however many values it holds and however deep they nest.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from enum import Enum
from io import BytesIO
from itertools import islice
from typing import Final

import msgspec

from usage_service.domain.event_checks import MAX_EVENT_BYTES


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


_BLANK: Final = b" \t\r\n"
_TEXT: Final = rb'"(?:[^"\\]++|\\.)*+"'
_OPENING: Final = re.compile(rb"[ \t\r\n]*\[")
# As far as the comma or bracket that comes next in the array itself.
_NEXT: Final = re.compile(rb'(?:[^"\[\]{},]++|%b)*+([\[\]{},])' % _TEXT, re.DOTALL)
_SIMPLE: Final = rb'[^"\[\]{}]++|%b' % _TEXT
_WITHIN = _SIMPLE
for _ in range(4):
    _WITHIN = rb"%b|[\[{](?:%b)*+[\]}]" % (_SIMPLE, _WITHIN)
# Within an event, as far as a bracket that matters: what holds no more than so many levels is passed over in one go, as
# there may be a million of it.
_NEXT_WITHIN: Final = re.compile(rb"(?:%b)*+([\[\]{}])" % _WITHIN, re.DOTALL)
# Every escape of a JSON text from left to right, so that an escaped backslash does not seem to begin one.
_ESCAPES: Final = re.compile(
    rb"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|(?P<lone>u[dD][89a-fA-F][0-9a-fA-F]{2})|.)",
    re.DOTALL,
)
_skim: Final = msgspec.json.Decoder(msgspec.Raw).decode


def split(body: bytes, form: Form, max_events: int) -> list[bytes]:
    """The text of each event. Lines may be anything; other parts are JSON but for what `event_checks` refuses.

    Raises MalformedBody, NoEvents where the body is only empty, and TooManyEvents.
    """
    parts = list(islice(_parts(body, form), max_events + 1))
    if len(parts) > max_events:
        raise TooManyEvents
    if not parts:
        raise NoEvents("the body holds no event")
    return parts


def is_array(body: bytes, form: Form) -> bool:
    return form is Form.ARRAY or (form is Form.EITHER and body.lstrip()[:1] == b"[")


def lines(body: bytes) -> Iterator[bytes]:
    """The lines that are not blank, each with its end."""
    return (line for line in BytesIO(body) if not line.isspace())


def _parts(body: bytes, form: Form) -> Iterator[bytes]:
    if form is Form.LINES:
        return lines(body)
    if is_array(body, form):
        return _elements(body)
    return iter([_json(body, "not valid JSON")])


def _elements(array: bytes) -> Iterator[bytes]:
    """Brackets are only counted: where two do not belong together, one of the parts is no JSON."""
    what = "not a JSON array of events"
    opening = _OPENING.match(array)
    if opening is None:
        raise MalformedBody(what)
    start = end = opening.end()
    depth = 1
    while depth:
        found = (_NEXT if depth == 1 else _NEXT_WITHIN).match(array, end)
        if found is None:
            raise MalformedBody(f"{what}: it is cut off")
        sign, end = found[1], found.end()
        if sign in b"[{":
            depth += 1
        elif sign == b",":
            yield _json(array[start : end - 1], what)
            start = end
        else:
            depth -= 1
    last = array[start : end - 1]
    if sign != b"]" or array[end:].strip(_BLANK):
        raise MalformedBody(f"{what}: it does not end with its bracket")
    if start != opening.end() or last.strip(_BLANK):
        yield _json(last, what)


def _json(text: bytes, what: str) -> bytes:
    """The same text where it is JSON. Raises MalformedBody.

    A lone surrogate, at which the decoder stops, becomes a NUL: it is as unstorable, and its event alone is refused.
    So is one that is too large, or that nests too deeply for the decoder.
    """
    text = text.strip(_BLANK)
    if len(text) > MAX_EVENT_BYTES:
        return text
    try:
        _skim(text)
    except RecursionError:
        return text
    except msgspec.DecodeError as error:
        reason = f"{what}: {error}"
    else:
        return text
    text = _ESCAPES.sub(_without_lone_surrogate, text)
    try:
        _skim(text)
    except RecursionError:
        return text
    except msgspec.DecodeError:
        raise MalformedBody(reason) from None
    return text


def _without_lone_surrogate(escape: re.Match[bytes]) -> bytes:
    return escape[0] if escape["lone"] is None else b"\\u0000"
