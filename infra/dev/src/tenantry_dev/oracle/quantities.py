"""Adds up a trace by tenant and month, line by line."""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
from collections import Counter, defaultdict
from datetime import datetime, timedelta
from pathlib import Path

# Usage of one tenant in one month, for example {"requests": 700, "bytes": 12345}.
Usage = Counter[str]
# Keyed by tenant number and month, for example (3, "2015-05"), in UTC.
UsageByMonth = defaultdict[tuple[int, str], Usage]


def log_usage(path: Path) -> UsageByMonth:
    usage: UsageByMonth = defaultdict(Counter)
    for line in _text(path).split("\n"):
        try:
            address, month, size = _log_line(line.removesuffix("\r"))
        except (ValueError, IndexError, OverflowError):
            continue
        tenant = int(hashlib.sha256(address.encode("utf-8")).hexdigest(), 16) % 12
        usage[tenant, month] += Counter(requests=1, bytes=size)
    return usage


def llm_usage(path: Path) -> UsageByMonth:
    usage: UsageByMonth = defaultdict(Counter)
    # Not a DictReader, which leaves blank lines out: they count as lines.
    rows = csv.reader(io.StringIO(_text(path).removeprefix("\ufeff"), newline=""), skipinitialspace=True)
    names = [name.strip() for name in next(rows)]
    for number, values in enumerate(rows):
        row = dict(zip(names, values, strict=False))
        try:
            moment = datetime.fromisoformat(_six_digits(row["TIMESTAMP"].strip()))
            tokens = Counter(input=_whole(row["ContextTokens"]), output=_whole(row["GeneratedTokens"]))
        except (ValueError, IndexError, KeyError, OverflowError):
            continue
        utc = moment - (moment.utcoffset() or timedelta(0))
        usage[number % 12, f"{utc:%Y-%m}"] += tokens + Counter(requests=1)
    return usage


def _log_line(line: str) -> tuple[str, str, int]:
    """Client address, month and size. ValueError or IndexError when request, status or size cannot be read."""
    address, _, named = line.partition(" ")
    before, stamp_and_rest = named.split('] "', 1)
    stamp = before.rsplit("[", 1)[1]
    moment = datetime.strptime(stamp, "%d/%b/%Y:%H:%M:%S %z")
    # Reading is laxer than the format: one digit for a day, months in any case, colons in the offset.
    if len(stamp) != 26 or f"{moment:%d/%b}/{moment.year:04}:{moment:%H:%M:%S}" != stamp[:20]:
        raise ValueError(line)
    # The request ends at the first quote that no backslash protects.
    end = 0
    while stamp_and_rest[end] != '"':
        end += 2 if stamp_and_rest[end] == "\\" else 1
    method_and_path = stamp_and_rest[:end].split()[:2]
    if "\0" in stamp_and_rest[:end]:  # no event may hold it
        raise ValueError(line)
    status, size = stamp_and_rest[end + 2 :].split(" ")[:2]
    if stamp_and_rest[end + 1] != " " or len(method_and_path) != 2 or len(status) != 3 or not address:
        raise ValueError(line)
    _whole(status)
    utc = moment - (moment.utcoffset() or timedelta(0))
    return address, f"{utc:%Y-%m}", 0 if size == "-" else _whole(size)


def _whole(text: str) -> int:
    text = text.strip()
    if not (text.isascii() and text.isdigit() and len(text) <= 38):  # what a number of an event may have
        raise ValueError(text)
    return int(text)


def _six_digits(stamp: str) -> str:
    """Python reads at most microseconds, and forms of a date that these files do not have."""
    if not stamp[17:19].isdigit():
        raise ValueError("no seconds")  # fromisoformat takes "23:59:Z" for a time
    marks = "".join(stamp[n] for n in (4, 7, 10, 13, 16)) + stamp[19:20]
    if marks[:2] != "--" or marks[2] not in " T" or marks[3:5] != "::" or marks[5:] not in {"", ".", "Z", "+", "-"}:
        raise ValueError(stamp)
    head, point, tail = stamp.partition(".")
    digits = len(tail) - len(tail.lstrip("0123456789"))
    if point and (len(head) != 19 or not digits or tail[digits : digits + 1] not in {"", "Z", "+", "-"}):
        raise ValueError(stamp)
    return head + point + tail[:digits][:6].ljust(6, "0") + tail[digits:] if point else stamp


def _text(path: Path) -> str:
    content = path.read_bytes()
    if content.startswith(b"\x1f\x8b"):
        content = gzip.decompress(content)
    return content.decode("utf-8", errors="replace")
