"""Makes traces with the shape of real ones, the same bytes for the same seed.

Few clients send most requests (Zipf), nights are quiet, bursts come now and then, sizes and token counts have heavy
tails, some lines are broken. Both traces run over the end of a month, so that each tenant gets two invoices of each.
"""

from __future__ import annotations

import bisect
import gzip
import io
import itertools
import math
import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

_LOG_START = datetime(2025, 5, 29, tzinfo=UTC)
_LLM_START = datetime(2025, 9, 29, 12, tzinfo=UTC)
_SPAN = timedelta(days=4)
_CLIENTS = 600
_ZIPF_EXPONENT = 1.1
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_PATHS = ("/", "/docs/start", "/docs/api", "/images/logo.png", "/search?q=invoice", "/feed.xml", "/style.css", "/login")
_AGENTS = (
    "Mozilla/5.0 (X11; Linux x86_64) Firefox/128.0",
    "curl/8.9.1",
    "FeedReader/2.4",
    "Mozilla/5.0 (compatible; Bot",
)


def generate_log(path: Path, *, lines: int = 10_000, seed: int = 1) -> None:
    """Writes an access log in combined format, gzip, of about that many lines."""
    _write(path, "".join(f"{line}\n" for line in _log_lines(_seeded(seed), lines)))


def generate_llm(path: Path, *, rows: int = 9_000, seed: int = 2) -> None:
    """Writes a CSV of requests to a language model, gzip."""
    rng = _seeded(seed)
    text = io.StringIO()
    text.write("TIMESTAMP,ContextTokens,GeneratedTokens\r\n")
    for time in _times(rng, rows, _LLM_START):
        context = min(32_000, 1 + int(rng.lognormvariate(7.2, 1.0)))
        generated = min(4_096, 1 + int(rng.paretovariate(1.2) * 8))
        text.write(f"{time:%Y-%m-%d %H:%M:%S.%f}{rng.randrange(10)},{context},{generated}\r\n")
    _write(path, text.getvalue())


def _seeded(seed: int) -> random.Random:
    return random.Random(seed)  # noqa: S311 - reproducible, not secret


def _log_lines(rng: random.Random, count: int) -> Iterator[str]:
    clients = [_address(rng, n) for n in range(_CLIENTS)]
    weights = list(itertools.accumulate(1 / (rank + 1) ** _ZIPF_EXPONENT for rank in range(_CLIENTS)))
    for number, time in enumerate(_times(rng, count, _LOG_START)):
        client = clients[bisect.bisect(weights, rng.random() * weights[-1])]
        stamp = f"{time:%d}/{_MONTHS[time.month - 1]}/{time:%Y:%H:%M:%S} +0000"
        status = rng.choices((200, 304, 404, 500), (88, 6, 5, 1))[0]
        size = "-" if status == 304 else str(int(rng.lognormvariate(9, 1.8)))
        request = f"{rng.choices(('GET', 'POST', 'HEAD'), (92, 6, 2))[0]} {rng.choice(_PATHS)} HTTP/1.1"
        if number % 2_503 == 7:
            request = "\\x16\\x03\\x01"  # somebody speaks TLS to the plain port
        yield f'{client} - - [{stamp}] "{request}" {status} {size} "-" "{rng.choice(_AGENTS)}"'


def _times(rng: random.Random, count: int, start: datetime) -> list[datetime]:
    """Sorted times: by day three times as many as by night, and a tenth of all in bursts of a minute."""
    times: list[datetime] = []
    while len(times) < count * 9 // 10:
        offset = rng.random() * _SPAN.total_seconds()
        busy = 0.5 - 0.5 * math.cos(2 * math.pi * (offset / 86_400 - 0.15))
        if rng.random() < 0.25 + 0.75 * busy:
            times.append(start + timedelta(seconds=offset))
    while len(times) < count:
        burst = start + timedelta(seconds=rng.random() * (_SPAN.total_seconds() - 60))
        size = min(count - len(times), 20 + int(60 * rng.random()))
        times.extend(burst + timedelta(seconds=60 * rng.random()) for _ in range(size))
    return sorted(times)


def _address(rng: random.Random, number: int) -> str:
    """An address of the ranges that are kept for documentation."""
    if number % 10 == 9:
        return f"2001:db8::{rng.randrange(0x10000):x}:{number:x}"
    return f"{rng.choice(('192.0.2', '198.51.100', '203.0.113'))}.{rng.randrange(256)}"


def _write(path: Path, text: str) -> None:
    draft = path.with_name(f".{path.name}.new")
    # No time and no name inside: the same seed gives the same bytes, and with them the same event ids.
    with draft.open("wb") as raw, gzip.GzipFile("", "wb", mtime=0, fileobj=raw) as packed:
        packed.write(text.encode())
    draft.replace(path)
