"""Answers as a caller sees them who looks for a difference."""

import json
import re
from collections.abc import Iterable
from typing import Any, Final

import httpx

# What differs from one request to the next although the same was found.
_VOLATILE_HEADERS: Final = frozenset(
    {"x-request-id", "date", "content-length", "retry-after", "server-timing", "traceparent"}
)
_VOLATILE_FIELDS: Final = frozenset({"instance", "request_id", "trace_id"})
_TIME: Final = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:\.\d+)?(?:Z|[+-]\d\d:?\d\d)?")
_UUID: Final = re.compile(r"(?<![0-9a-f])[0-9a-f]{8}-?(?:[0-9a-f]{4}-?){3}[0-9a-f]{12}(?![0-9a-f])", re.IGNORECASE)

Comparable = tuple[int, dict[str, str], str]


def comparable(response: httpx.Response, asked: Iterable[str]) -> Comparable:
    """What a caller could tell two answers apart by, but for ids and times, and ``asked``, the values it chose."""
    chosen = sorted({value for value in asked if value}, key=len, reverse=True)
    headers = {
        name: _masked(value, chosen)
        for name, value in sorted(response.headers.items())
        if name not in _VOLATILE_HEADERS and "ratelimit" not in name
    }
    try:
        body = json.dumps(_without_volatile(json.loads(response.content)), sort_keys=True)
    except ValueError:
        body = response.content.decode("latin-1")
    return response.status_code, headers, _masked(body, chosen)


def told(answer: Comparable) -> str:
    """An answer in a line."""
    status, _, body = answer
    return f"{status} {body[:200]}"


def difference(one: Comparable, other: Comparable) -> str:
    """In what two different answers differ, in a line."""
    if one[0] != other[0] or one[2] != other[2]:
        return f"{told(one)} instead of {told(other)}"
    names = sorted(name for name in one[1].keys() | other[1].keys() if one[1].get(name) != other[1].get(name))
    return "headers " + ", ".join(f"{name}: {one[1].get(name)!r}, {other[1].get(name)!r}" for name in names)


def ids_in(response: httpx.Response) -> set[str]:
    """The UUIDs that stand in an answer."""
    return {found.lower() for found in _UUID.findall(text_of(response))}


def text_of(response: httpx.Response) -> str:
    """Headers and body as one text, to look for words in."""
    return f"{response.headers.raw!r} {response.content.decode('latin-1')}"


def text_of_request(request: httpx.Request) -> str:
    """Address, headers and body as one text."""
    return f"{request.url} {request.headers.raw!r} {request.content.decode('latin-1')}"


def _masked(text: str, chosen: Iterable[str]) -> str:
    for value in chosen:
        text = re.sub(rf"(?<!\w){re.escape(value)}(?!\w)", "<asked>", text)
    return _UUID.sub("<id>", _TIME.sub("<time>", text))


def _without_volatile(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_volatile(each) for name, each in value.items() if name not in _VOLATILE_FIELDS}
    if isinstance(value, list):
        return [_without_volatile(each) for each in value]
    return value
