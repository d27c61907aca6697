"""Traces: an access log in combined format, or a CSV of requests to a language model, plain or gzip, read as events.

Data lines are counted from 0. The identity of an event is the file and the number of its line, so that reading the
same file again gives the same events and identical lines stay apart. A line that cannot be read is skipped, with its
reason; its number is not given to another.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import re
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Literal

from tenantry.metering import UnreadableLine, read_access_line, read_timestamp

TENANTS = 12

_COUNT = re.compile(r"[0-9]{1,38}")
_COLUMNS = ("TIMESTAMP", "ContextTokens", "GeneratedTokens")


class TraceError(ValueError):
    """The file as a whole cannot be used; the text says why."""


@dataclass(frozen=True, slots=True)
class TraceEvent:
    """One data line. `time` is in UTC, `tenant` a number below TENANTS."""

    line: int
    id: str
    source: str
    type: str
    tenant: int
    time: datetime
    data: dict[str, str | int]


@dataclass(frozen=True, slots=True)
class Skipped:
    line: int
    reason: str


@dataclass(frozen=True)
class Trace:
    """A trace file that has been read through once. `digest` is the SHA-256 of the file as it lies on disk."""

    path: Path
    kind: Literal["log", "llm"]
    digest: str
    events_total: int
    skipped: tuple[Skipped, ...]
    first: datetime
    last: datetime

    @property
    def source(self) -> str:
        return f"replay/{self.kind}"

    def events(self) -> Iterator[TraceEvent]:
        """The events in file order; reads the file anew at every call."""
        return (event for event in _read(self.path, self.kind, self.digest) if isinstance(event, TraceEvent))


def open_trace(path: Path, kind: Literal["log", "llm"]) -> Trace:
    """Reads the file through. Raises TraceError when it is missing, of another kind, or holds no readable line."""
    try:
        digest = _sha256(path)
        skipped: list[Skipped] = []
        count, first, last = 0, datetime.max.replace(tzinfo=UTC), datetime.min.replace(tzinfo=UTC)
        for item in _read(path, kind, digest):
            if isinstance(item, Skipped):
                skipped.append(item)
                continue
            count, first, last = count + 1, min(first, item.time), max(last, item.time)
    except (OSError, EOFError, csv.Error, zlib.error) as error:
        raise TraceError(f"{path} cannot be read: {error}") from error
    if count == 0:
        what = "access log in combined format" if kind == "log" else f"CSV with the columns {', '.join(_COLUMNS)}"
        raise TraceError(f"{path} holds no line that can be read as an {what}.")
    return Trace(path, kind, digest, count, tuple(skipped), first, last)


def _read(path: Path, kind: Literal["log", "llm"], digest: str) -> Iterator[TraceEvent | Skipped]:
    read: Callable[[IO[str], str], Iterator[TraceEvent | Skipped]] = _read_log if kind == "log" else _read_csv
    with path.open("rb") as probe:
        packed = probe.read(2) == b"\x1f\x8b"
    # csv wants line ends untouched; in a log only \n ends a line, whatever a client smuggled into a field.
    newline = "" if kind == "llm" else "\n"
    with (
        gzip.open(path) if packed else path.open("rb") as raw,
        io.TextIOWrapper(raw, encoding="utf-8", errors="replace", newline=newline) as file,
    ):
        yield from read(file, digest[:16])


def _read_log(file: IO[str], prefix: str) -> Iterator[TraceEvent | Skipped]:
    for number, line in enumerate(file):
        try:
            request = read_access_line(line.rstrip("\r\n"))
        except UnreadableLine as error:
            yield Skipped(number, str(error))
            continue
        tenant = int(hashlib.sha256(request.address.encode()).hexdigest(), 16) % TENANTS
        data: dict[str, str | int] = {
            "method": request.method,
            "path": request.path,
            "status": request.status,
            "bytes": request.bytes,
        }
        yield TraceEvent(number, f"{prefix}:{number}", "replay/log", "http.request", tenant, request.time, data)


def _read_csv(file: IO[str], prefix: str) -> Iterator[TraceEvent | Skipped]:
    rows = csv.reader(file, skipinitialspace=True)
    head = [name.strip().removeprefix("\ufeff") for name in next(rows, [])]
    if any(column not in head for column in _COLUMNS):
        raise TraceError(f"The file has no columns {', '.join(_COLUMNS)} in its first line.")
    places = [head.index(column) for column in _COLUMNS]
    for number, row in enumerate(rows):
        try:
            stamp, context, generated = (row[place].strip() for place in places)
            time = read_timestamp(stamp)
            data: dict[str, str | int] = {"input_tokens": _count(context), "output_tokens": _count(generated)}
        except IndexError:
            yield Skipped(number, "columns are missing")
        except UnreadableLine as error:
            yield Skipped(number, str(error))
        else:
            yield TraceEvent(number, f"{prefix}:{number}", "replay/llm", "llm.request", number % TENANTS, time, data)


def _count(text: str) -> int:
    if not _COUNT.fullmatch(text):
        raise UnreadableLine("a number of tokens cannot be read")
    return int(text)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
