"""An import from its first line to its last."""

import asyncio
import itertools
from collections import deque
from collections.abc import Iterator
from typing import Final, NamedTuple

import msgspec

from tenantry.cli import Unreachable
from usage_service.commands._ingest import Refused, Sender
from usage_service.commands._progress import Journal, Tally, Telling
from usage_service.commands._readers import Line, Read

BATCH: Final = 500
BATCH_BYTES: Final = 3 << 20
"""Below what a request may hold by default; what is still too large is sent in halves."""
AT_ONCE: Final = 4

_encode = msgspec.json.Encoder(decimal_format="number").encode


class _Batch(NamedTuple):
    lines: list[int]
    events: list[bytes]
    next_line: int


async def import_lines(
    lines: Read, sender: Sender, tally: Tally, telling: Telling, journal: Journal | None, *, first: int, at_once: int
) -> None:
    """Sends what can be read, from the line `first` on, and fills the tally.

    Batches begin in the order of the file, `at_once` of them at a time. The journal is brought up to date behind the
    oldest that is open, and removed at the end. Raises CommandFailed; what was sent until then counts.
    """
    open_batches: deque[tuple[_Batch, asyncio.Task[list[Refused]]]] = deque()
    try:
        for batch in _batches(lines, tally, first):
            task = asyncio.create_task(sender.send(batch.events))
            open_batches.append((batch, task))
            if len(open_batches) >= at_once:
                await _settle(*open_batches.popleft(), tally, telling, journal)
        while open_batches:
            await _settle(*open_batches.popleft(), tally, telling, journal)
    except Unreachable as failure:
        raise Unreachable(failure.reason, "repeat the command with --resume: no event counts twice") from None
    finally:
        for _, task in open_batches:
            task.cancel()
        await asyncio.gather(*(task for _, task in open_batches), return_exceptions=True)
    if journal is not None:
        journal.remove()


async def _settle(
    batch: _Batch, task: asyncio.Task[list[Refused]], tally: Tally, telling: Telling, journal: Journal | None
) -> None:
    refused = await task
    tally.sent += len(batch.events)
    tally.accepted += len(batch.events) - len(refused)
    for each in refused:
        tally.refuse(batch.lines[each.index], each.reason)
    if journal is not None:
        journal.keep(batch.next_line)
    telling.update(tally)


def _batches(lines: Read, tally: Tally, first: int) -> Iterator[_Batch]:
    numbers: list[int] = []
    events: list[bytes] = []
    size = next_line = 0
    for read in itertools.dropwhile(lambda read: read.number < first, lines):
        tally.lines += 1
        if not isinstance(read, Line):
            tally.skip(read.number, read.reason)
            continue
        event = _encode(read.event)
        if events and (len(events) == BATCH or size + len(event) > BATCH_BYTES):
            yield _Batch(numbers, events, next_line)
            numbers, events, size = [], [], 0
        numbers.append(read.number)
        events.append(event)
        size, next_line = size + len(event) + 1, read.number + 1
    if events:
        yield _Batch(numbers, events, next_line)
