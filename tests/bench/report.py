"""The form of a bench: a module `bench_<name>.py` with `async def run(servers: Servers) -> list[Row]`.

A bench starts what it needs (databases, topics, processes) on the given servers and removes it afterwards. It never
fails on time: it prints figures, with the limit that was measured beside them in the same run.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from statistics import median
from typing import TypedDict


@dataclass(frozen=True, slots=True)
class Servers:
    """Where benches may create databases and topics: a superuser's PostgreSQL URL and Kafka's bootstrap address."""

    postgres: str
    kafka: str


class Row(TypedDict):
    """One figure. `limit` is what the machine can do at most, measured in the same run; `ratio` is value over it."""

    name: str
    value: float | None
    unit: str
    limit: float | None
    ratio: float | None
    detail: dict[str, object]


def row(name: str, value: float | None, unit: str, *, limit: float | None = None, **detail: object) -> Row:
    ratio = round(value / limit, 4) if value is not None and limit else None
    rounded = None if value is None else round(value, 3)
    return Row(
        name=name,
        value=rounded,
        unit=unit,
        limit=None if limit is None else round(limit, 3),
        ratio=ratio,
        detail=detail,
    )


def percentiles(samples: Sequence[float]) -> dict[str, float]:
    """p50 and p99 of samples, which may be infinite, in their own unit; for `detail`."""
    if len(samples) < 2:
        return {}
    return {"p50": round(median(samples), 4), "p99": round(sorted(samples)[ceil(0.99 * len(samples)) - 1], 4)}


def drift(samples: Sequence[float]) -> float | None:
    """How far the last four fifths of samples lie apart, as a part of their middle."""
    last = samples[len(samples) // 5 :]
    return round((max(last) - min(last)) / median(last), 4) if len(last) > 1 else None


def merge(path: Path, rows: list[Row]) -> list[Row]:
    """Writes the rows into the list at `path`: a name that is already there is replaced, none is ever dropped."""
    known: dict[str, Row] = {}
    if path.exists():
        known = {old["name"]: old for old in json.loads(path.read_text())}
    known.update({new["name"]: new for new in rows})
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(list(known.values()), indent=2) + "\n")
    return list(known.values())
