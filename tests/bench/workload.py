"""The reference workload of every usage bench, seeded, so that two runs on two machines measure the same events.

Events of about 250 bytes from 1,000 tenants by Zipf (s = 1.1); three meters, one of them with two dimensions; 5 %
duplicates, of which half carry a time on another day; two days of event time. Time advances with the stream, as it does
in traffic, with a jitter of some minutes; `spread=True` draws it uniformly over the two days instead, which touches far
more rollup rows per batch and is printed beside the reference.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from uuid import UUID

from tenantry import TenantId

METERS: dict[str, dict[str, object]] = {
    "api-calls": {
        "event_type": "http.request",
        "aggregation": "count",
        "group_by": {"method": "$.method", "path": "$.path"},
        "unit": "request",
    },
    "bandwidth": {"event_type": "http.request", "aggregation": "sum", "value": "$.bytes", "unit": "byte"},
    "tokens": {"event_type": "llm.request", "aggregation": "sum", "value": "$.input_tokens", "unit": "token"},
}
PARTITIONS = 12
_METHODS = ("GET", "GET", "GET", "GET", "POST", "PATCH", "DELETE")
_PATHS = tuple(
    f"/v1/{noun}{rest}" for noun in ("documents", "files", "search", "exports", "members") for rest in ("", "/{id}")
)
_DUPLICATES = 0.05
_REMEMBERED = 50_000


@dataclass(frozen=True, slots=True)
class Sample:
    """One generated event: everything the CloudEvent says, before it has a wire form."""

    tenant_id: TenantId
    id: str
    source: str
    type: str
    time: datetime
    data: str

    def cloudevent(self, *, subject: str | None = None) -> bytes:
        """The event as CloudEvents JSON; about 250 bytes."""
        return (
            f'{{"specversion":"1.0","id":"{self.id}","source":"{self.source}","type":"{self.type}",'
            f'"subject":"{subject or self.tenant_id}","time":"{self.time:%Y-%m-%dT%H:%M:%S.%f}Z","data":{self.data}}}'
        ).encode()

    @property
    def partition(self) -> int:
        """A partition of `usage.events.v1`: the same for every event of a tenant, as the key is the tenant."""
        return self.tenant_id.int % PARTITIONS


@dataclass(slots=True)
class Workload:
    """An endless stream of samples; `take(n)` continues where the last call stopped."""

    seed: int = 7
    tenants: int = 1_000
    start: datetime = field(default_factory=lambda: datetime(2026, 11, 19, tzinfo=UTC))
    events: int = 1_000_000
    spread: bool = False
    tenant_ids: list[TenantId] = field(init=False)
    _random: random.Random = field(init=False)
    _weights: list[float] = field(init=False)
    _recent: list[Sample] = field(init=False, default_factory=list)
    _made: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)  # noqa: S311 (a workload, repeatable)
        self.tenant_ids = [TenantId(UUID(int=self._random.getrandbits(128), version=4)) for _ in range(self.tenants)]
        self._weights = list(itertools.accumulate(1 / rank**1.1 for rank in range(1, self.tenants + 1)))

    def take(self, count: int) -> Iterator[Sample]:
        owners = self._random.choices(self.tenant_ids, cum_weights=self._weights, k=count)
        for tenant_id in owners:
            yield self._duplicate() if self._recent and self._random.random() < _DUPLICATES else self._event(tenant_id)

    def _event(self, tenant_id: TenantId) -> Sample:
        draw = self._random
        position = draw.random() if self.spread else min(self._made / self.events, 1.0)
        time = self.start + timedelta(days=2) * position * 0.99 + timedelta(seconds=draw.uniform(0, 300))
        if draw.random() < 0.8:
            kind = "http.request"
            data = (
                f'{{"method":"{draw.choice(_METHODS)}","path":"{draw.choice(_PATHS)}",'
                f'"status":200,"bytes":{draw.randrange(100, 100_000)}}}'
            )
        else:
            kind = "llm.request"
            data = f'{{"input_tokens":{draw.randrange(1, 8_000)},"output_tokens":{draw.randrange(1, 800)}}}'
        self._made += 1
        sample = Sample(tenant_id, f"{draw.getrandbits(64):016x}-{self._made}", "bench/api", kind, time, data)
        if len(self._recent) < _REMEMBERED:
            self._recent.append(sample)
        else:
            self._recent[draw.randrange(_REMEMBERED)] = sample
        return sample

    def _duplicate(self) -> Sample:
        original = self._random.choice(self._recent)
        if self._random.random() < 0.5:
            return original
        day = timedelta(days=1 if original.time < self.start + timedelta(days=1) else -1)
        return Sample(
            original.tenant_id, original.id, original.source, original.type, original.time + day, original.data
        )
