"""Sends a trace to the ingest API: in batches, a part of it twice."""

from __future__ import annotations

import asyncio
import itertools
import json
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from tenantry_dev.sample.api import Api
from tenantry_dev.sample.onboarding import SampleTenant
from tenantry_dev.sample.traces import Trace, TraceEvent

BATCH = 250
_IN_FLIGHT = 4
# One event in so many is sent a second time, in a later batch.
_DUPLICATE_ONE_IN = 16


@dataclass(frozen=True)
class Replayed:
    """How many events were sent and acknowledged, and how many of these were copies."""

    sent: int
    copies: int


async def replay(
    usage: Api, trace: Trace, tenants: Sequence[SampleTenant], progress: Callable[[int], None] = lambda _: None
) -> Replayed:
    """Sends every event at least once and returns when all are acknowledged. `progress` is told numbers of events.

    May be repeated and may follow a run that was killed: an event has the same id each time and counts once.
    """
    subjects = {tenant.number: tenant.id for tenant in tenants}
    batches = _batches(_with_copies(trace.events()))
    sent = copies = 0

    async def worker() -> None:
        nonlocal sent, copies
        for batch in batches:
            body = json.dumps([_cloud_event(event, subjects[event.tenant]) for event, _ in batch])
            await usage.call(
                "POST",
                "/v1/events",
                content=body,
                headers={"Content-Type": "application/cloudevents-batch+json"},
            )
            again = sum(copy for _, copy in batch)
            sent, copies = sent + len(batch), copies + again
            progress(len(batch) - again)

    async with asyncio.TaskGroup() as group:
        for _ in range(_IN_FLIGHT):
            group.create_task(worker())
    return Replayed(sent, copies)


def _with_copies(events: Iterable[TraceEvent]) -> Iterator[tuple[TraceEvent, bool]]:
    """The events; some come again, one to three batches later."""
    waiting: list[tuple[int, TraceEvent]] = []
    for number, event in enumerate(events):
        while waiting and waiting[0][0] <= number:
            yield waiting.pop(0)[1], True
        yield event, False
        chance = zlib.crc32(event.id.encode())
        if chance % _DUPLICATE_ONE_IN == 0:
            due = number + BATCH * (1 + chance // _DUPLICATE_ONE_IN % 3)
            waiting.append((due, event))
            waiting.sort(key=lambda item: item[0])
    for _, event in waiting:
        yield event, True


def _batches(events: Iterable[tuple[TraceEvent, bool]]) -> Iterator[list[tuple[TraceEvent, bool]]]:
    iterator = iter(events)
    while batch := list(itertools.islice(iterator, BATCH)):
        yield batch


def _cloud_event(event: TraceEvent, subject: str) -> dict[str, Any]:
    return {
        "specversion": "1.0",
        "id": event.id,
        "source": event.source,
        "type": event.type,
        "subject": subject,
        "time": event.time.isoformat(),
        "data": event.data,
    }
