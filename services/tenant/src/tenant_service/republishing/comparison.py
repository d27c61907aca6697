"""Where a topic and the tables differ. Pure."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum


class Difference(StrEnum):
    MISSING = "missing"
    """The topic has no record of what is in a table."""
    STALE = "stale"
    """The topic's last record is an older version, or says that it is gone."""
    LEFT_OVER = "left_over"
    """The topic has a record of what is in no table."""
    AHEAD = "ahead"
    """The topic has a newer version than the table: the database was set back to an earlier time."""


@dataclass(frozen=True, slots=True)
class Seen:
    """The last record of a key: its version, and whether it is a tombstone."""

    version: int
    gone: bool


@dataclass(frozen=True, slots=True)
class Finding:
    topic: str
    key: str
    difference: Difference
    table_version: int | None
    topic_version: int | None


def compare(topic: str, table: Mapping[str, int], seen: Mapping[str, Seen]) -> Iterable[Finding]:
    """What differs, by key; `table` has the versions of what should be on the topic.

    Read the topic first and the tables after it: then a change in between makes a key stale, which costs one record,
    and never ahead.
    """
    for key in sorted(table.keys() | seen.keys()):
        version, last = table.get(key), seen.get(key)
        difference = _difference(version, last)
        if difference is not None:
            yield Finding(topic, key, difference, version, None if last is None else last.version)


def _difference(version: int | None, last: Seen | None) -> Difference | None:
    if version is None:
        return None if last is None or last.gone else Difference.LEFT_OVER
    if last is None:
        return Difference.MISSING
    if last.version > version:
        return Difference.AHEAD
    return Difference.STALE if last.version < version or last.gone else None
