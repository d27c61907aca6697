"""The part of JSONPath (RFC 9535) that meters may use: names and indices, from the root.

`$.a.b`, `$['a b']`, `$.items[0].price`. No wildcards, filters, slices or descendants: a path names at most one value.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from copy import deepcopy
from typing import Any

from usage_service.domain.errors import InvalidPath

Segment = str | int
_STEP = re.compile(
    r"""\.(?P<name>[A-Za-z_\u0080-\uffff][A-Za-z0-9_\u0080-\uffff]*)
      | \[(?P<index>0|-?[1-9][0-9]*)\]
      | \['(?P<single>[^'\\\x00-\x1f]*)'\]
      | \["(?P<double>[^"\\\x00-\x1f]*)"\]""",
    re.VERBOSE,
)
_LONGEST = 512


def parse_path(text: str) -> tuple[Segment, ...]:
    """The segments after `$`. Raises InvalidPath when it is not a path of names and indices, or names nothing."""
    if not text.startswith("$"):
        raise InvalidPath("a path starts with $")
    if len(text) > _LONGEST:
        raise InvalidPath(f"a path has at most {_LONGEST} characters")
    segments: list[Segment] = []
    position = 1
    while position < len(text):
        step = _STEP.match(text, position)
        if step is None:
            raise InvalidPath(f"only names and indices are allowed in a path (at character {position + 1})")
        if step["index"] is not None:
            segments.append(int(step["index"]))
        else:
            segments.append(next(name for name in step.group("name", "single", "double") if name is not None))
        position = step.end()
    if not segments:
        raise InvalidPath("a path names a member of the data")
    return tuple(segments)


def member(holder: object, segment: Segment) -> object:
    """What a container has under a name or at an index; None where it has nothing there."""
    if isinstance(segment, str):
        return holder.get(segment) if isinstance(holder, dict) else None
    if isinstance(holder, list) and -len(holder) <= segment < len(holder):
        return holder[segment]
    return None


def reader(text: str) -> Callable[[Mapping[str, object]], object]:
    """A function from an event's data to the value at the path; None where it is missing (or null)."""
    segments = parse_path(text)
    first = segments[0]
    if len(segments) == 1 and isinstance(first, str):
        name = first
        return lambda data: data.get(name)

    def read(data: Mapping[str, object]) -> object:
        value: object = data
        for segment in segments:
            if isinstance(segment, str):
                if not isinstance(value, dict):
                    return None
                value = value.get(segment)
            else:
                if not isinstance(value, list) or not -len(value) <= segment < len(value):
                    return None
                value = value[segment]
        return value

    return read


def with_value(data: Mapping[str, object], path: str, value: object) -> dict[str, object]:
    """A copy of an event's data that has `value` at the path; objects on the way that are missing are made.

    Raises InvalidPath where something else is in the way, or a list is too short.
    """
    changed: dict[str, object] = {"": deepcopy(dict(data))}
    holder: Any = changed
    place: Segment = ""
    for segment in parse_path(path):
        if isinstance(segment, str) and holder[place] is None:
            holder[place] = {}
        inside = holder[place]
        fits = isinstance(inside, dict) if isinstance(segment, str) else isinstance(inside, list)
        if not fits or (isinstance(segment, int) and not -len(inside) <= segment < len(inside)):
            raise InvalidPath(f"{path} does not lead through this data")
        if isinstance(segment, str):
            inside.setdefault(segment, None)
        holder, place = inside, segment
    holder[place] = value
    found: dict[str, object] = changed[""]  # type: ignore[assignment]  # the first segment is looked up in it
    return found
