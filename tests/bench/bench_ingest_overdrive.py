"""`ingest_overdrive`: the ingest offered five times of what it can take, from far more connections than it can serve.

What is looked at is not the rate but what happens beside it: memory over time, the answers, and whether each event that
was acknowledged stands in the topic exactly once (a request that was not may be there in part: repeating it is safe).
`BENCH_OVERDRIVE_SECONDS` is how long.
"""

from __future__ import annotations

import asyncio
import os
import re
import time
from collections import Counter, deque
from dataclasses import dataclass, field
from statistics import median
from typing import cast

from aiokafka import AIOKafkaConsumer, TopicPartition
from load import post
from report import Row, Servers, row
from usage_stack import UsageStack, sample_memory, usage_stack
from workload import PARTITIONS, Workload

SECONDS = float(os.environ.get("BENCH_OVERDRIVE_SECONDS", "60"))
CALM_SECONDS = float(os.environ.get("BENCH_SECONDS", "5"))
FACTOR = 5
BATCH = 500
CONNECTIONS = 1_000
CALM_CONNECTIONS = 64
GROWTH_MIB = 2 * 96
"""What 1,000 connections and as much as may be in flight (`USAGE_MAX_IN_FLIGHT_BYTES`) may add, whatever is offered."""

_BODIES = 40
_MARK = b"bench/########"
_NUMBER = re.compile(rb'"source":"bench/(\d{8})"')
_ACCEPTED = 202


async def run(servers: Servers) -> list[Row]:
    async with usage_stack(servers) as stack:
        workload = Workload()
        await stack.publish_state(workload)
        async with stack.role("usage-api") as process:
            await stack.ready()
            flood = _Flood(stack, _bodies(stack, workload))
            for _ in range(2):  # the first one is slower: connections, routes and the machine get warm
                calm = await flood.offer(rate=float("inf"), seconds=CALM_SECONDS, connections=CALM_CONNECTIONS)
            sampling = asyncio.create_task(sample_memory(SECONDS / 10, process.pid))
            started, sent = time.perf_counter(), flood.sent
            loud = await flood.offer(rate=FACTOR * calm, seconds=SECONDS, connections=CONNECTIONS)
            seconds, sent = time.perf_counter() - started, flood.sent - sent
            sampling.cancel()
            pss = await sampling
        in_topic = await _count(stack)
    acknowledged = flood.numbers[_ACCEPTED]
    wrong = sum(in_topic[number] != BATCH for number in acknowledged)
    return [
        row(
            "ingest_overdrive",
            loud * BATCH,
            "events/s",
            limit=calm * BATCH,
            seconds=round(seconds),
            offered_per_second=round(flood.due / SECONDS * BATCH),
            sent_per_second=round(sent / SECONDS * BATCH),
            connections=CONNECTIONS,
            statuses={status: len(numbers) for status, numbers in sorted(flood.numbers.items())},
            without_retry_after=flood.without_retry_after,
            refused_after_seconds_p50=round(median(flood.refused_after), 4) if flood.refused_after else None,
            pss_mib=[round(each / 2**20) for each in pss],
            at_most={"pss_growth_mib": [round((max(pss) - pss[0]) / 2**20), GROWTH_MIB]},
            acknowledged_events=len(acknowledged) * BATCH,
            acknowledged_requests_not_exactly_in_topic=wrong,
            events_in_topic=in_topic.total(),
            of_unacknowledged_requests=sum(in_topic[number] for number in in_topic.keys() - acknowledged),
        )
    ]


@dataclass
class _Flood:
    """Requests with a number of their own each, and what was answered to which."""

    stack: UsageStack
    bodies: list[bytes]
    numbers: dict[int, set[int]] = field(default_factory=lambda: {_ACCEPTED: set()})
    without_retry_after: int = 0
    refused_after: list[float] = field(default_factory=list)
    due: int = 0
    _next: int = 0

    async def offer(self, *, rate: float, seconds: float, connections: int) -> float:
        """Lets requests fall due at `rate`; those that find no free connection are not sent. Returns 202s a second."""
        loop = asyncio.get_running_loop()
        free: deque[_Connection] = deque()
        opened = [
            await loop.create_connection(lambda: _Connection(self, free), "127.0.0.1", self.stack.port)
            for _ in range(connections)
        ]
        before = len(self.numbers[_ACCEPTED])
        started = time.perf_counter()
        self.due = 0
        while (elapsed := time.perf_counter() - started) < seconds:
            while free and self.due < rate * elapsed:
                free.popleft().send()
                self.due += 1
            if rate * elapsed != float("inf"):
                self.due = max(self.due, int(rate * elapsed))
            await asyncio.sleep(0.001)
        done = len(self.numbers[_ACCEPTED]) - before
        deadline = time.perf_counter() + 20
        while len(free) < connections and time.perf_counter() < deadline:  # noqa: ASYNC110 (the server's answers)
            await asyncio.sleep(0.05)
        for transport, _ in opened:
            transport.close()
        return done / seconds

    @property
    def sent(self) -> int:
        """Requests so far; of those that were due many find no free connection."""
        return self._next

    def request(self) -> tuple[int, bytes]:
        self._next += 1
        body = self.bodies[self._next % len(self.bodies)]
        return self._next, body.replace(_MARK, b"bench/%08d" % self._next)

    def answered(self, number: int, head: bytes, seconds: float) -> None:
        status = int(head[9:12])
        self.numbers.setdefault(status, set()).add(number)
        if status != _ACCEPTED:
            self.refused_after.append(seconds)
            self.without_retry_after += b"\r\nretry-after:" not in head.lower()


class _Connection(asyncio.Protocol):
    """One request at a time."""

    def __init__(self, flood: _Flood, free: deque[_Connection]) -> None:
        self._flood = flood
        self._free = free
        self._buffer = b""
        self._number = 0
        self._sent = 0.0
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is none by inheritance
        self._free.append(self)

    def send(self) -> None:
        assert self._transport is not None
        self._number, request = self._flood.request()
        self._sent = time.perf_counter()
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head, separator, rest = self._buffer.partition(b"\r\n\r\n")
        if not separator:
            return
        length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n", 1)[0])
        if len(rest) < length:
            return
        self._buffer = rest[length:]
        self._flood.answered(self._number, head, time.perf_counter() - self._sent)
        self._free.append(self)


def _bodies(stack: UsageStack, workload: Workload) -> list[bytes]:
    """Whole requests, whose events all have the mark in their source where a number belongs."""
    requests = []
    for _ in range(_BODIES):
        events = [sample.cloudevent() for sample in workload.take(BATCH)]
        body = b"[" + b",".join(event.replace(b"bench/api", _MARK) for event in events) + b"]"
        requests.append(post(body, "application/cloudevents-batch+json", stack.secret, stack.port))
    return requests


async def _count(stack: UsageStack) -> Counter[int]:
    """How many records the topic has of each request."""
    counts: Counter[int] = Counter()
    topic = stack.kafka.topic("usage.events.v1")
    consumer = AIOKafkaConsumer(
        **stack.kafka.client_options(), isolation_level="read_committed", enable_auto_commit=False
    )
    await consumer.start()
    try:
        partitions = [TopicPartition(topic, number) for number in range(PARTITIONS)]
        consumer.assign(partitions)
        await consumer.seek_to_beginning(*partitions)
        ends = await consumer.end_offsets(partitions)
        while any([await consumer.position(each) < ends[each] for each in partitions]):
            for records in (await consumer.getmany(timeout_ms=500, max_records=20_000)).values():
                counts.update(int(found[1]) for record in records if (found := _NUMBER.search(record.value)))
    finally:
        await consumer.stop()
    return counts
