"""Brings spooled events to Kafka: this process's own, and those that dead processes left behind."""

import asyncio
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final, Protocol

import structlog
from prometheus_client import Counter

from tenantry import Unavailable
from tenantry._backoff import Backoff
from tenantry.metering._frames import Damage, read_frames
from tenantry.metering._segments import SegmentDirectory, other_directories, set_aside
from tenantry.metering._spool import Spool

log = structlog.get_logger(__name__)

SHIPPED = Counter("spool_shipped_total", "Spooled events that Kafka has acknowledged")
TORN = Counter("spool_torn_bytes_total", "Bytes of events that a killed process had not finished writing")
ADOPTED = Counter("spool_adopted_total", "Directories of dead processes that this one shipped")

_IDLE_SECONDS: Final = 0.05
_ADOPT_SECONDS: Final = 10.0
# Two of the largest frames, so that every read holds a whole one.
_READ_BYTES: Final = 2 << 20
_LIST: Final = 1_000


class Publisher(Protocol):
    """Where events go: `UsageProducer`, or a stand-in."""

    async def send(self, events: Sequence[tuple[bytes, bytes]]) -> None:
        """Returns when all (key, value) are safe; raises `Unavailable` when that is not known."""
        ...


class Shipper:
    """Reads segments in order and frees what was acknowledged.

    Killed at any moment it sends some events again; they carry their ids, so they count once.
    """

    def __init__(
        self,
        spool: Spool,
        publisher: Publisher,
        *,
        adopt_seconds: float = _ADOPT_SECONDS,
        idle_seconds: float = _IDLE_SECONDS,
    ) -> None:
        self._spool = spool
        self._publisher = publisher
        self._adopt_seconds = adopt_seconds
        self._idle_seconds = idle_seconds

    async def run(self) -> None:
        """Ships until cancelled; waits with back-off while Kafka is away."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._ship_own())
            tasks.create_task(self._adopt_others())

    async def _ship_own(self) -> None:
        # The growing segment is shipped piece by piece; this is how far, while it cannot be freed.
        shipped: dict[Path, int] = {}
        while True:
            moved = False
            for path, size in self._spool.readable():
                start = shipped.pop(path, 0)
                if start < size:
                    moved = True
                    if not await self._ship(path, start, size):
                        self._spool.set_aside(path)
                        continue
                if not self._spool.discard(path, size):
                    shipped[path] = size
            if not moved:
                await asyncio.sleep(self._idle_seconds)

    async def _adopt_others(self) -> None:
        while True:
            for path in other_directories(self._spool.root, self._spool.path):
                directory = SegmentDirectory.adopt(path)
                if directory is not None:
                    await self._ship_adopted(directory)
            await asyncio.sleep(self._adopt_seconds)

    async def _ship_adopted(self, directory: SegmentDirectory) -> None:
        log.info("spool_adopted", path=str(directory.path))
        try:
            for segment in directory.segments():
                if await self._ship(segment, 0, segment.stat().st_size):
                    segment.unlink()
                else:
                    set_aside(segment)
            ADOPTED.inc()
        finally:
            directory.release()

    async def _ship(self, path: Path, start: int, end: int) -> bool:
        """Sends the frames of a segment between two offsets; False when it stops being readable before `end`.

        An unfinished frame at the very end is what a killed process leaves, of an event nobody was told is safe.
        """
        at = start
        while at < end:
            data = await asyncio.to_thread(_read, path, at, min(_READ_BYTES, end - at))
            events: list[tuple[bytes, bytes]] = []
            for item in read_frames(data, at):
                if isinstance(item, Damage):
                    if item.torn and at + len(data) < end and item.offset > at:
                        break  # only the read ends inside this frame
                    await self._send(events)
                    return self._judge(path, item, end)
                key, value, at_next = item
                events.append((key, value))
                if len(events) == _LIST:
                    await self._send(events)
                    events = []
                reached = at_next
            await self._send(events)
            at = reached
        return True

    def _judge(self, path: Path, damage: Damage, end: int) -> bool:
        lost = end - damage.offset
        if damage.torn:
            TORN.inc(lost)
            log.warning("spool_segment_torn", path=str(path), bytes=lost)
            return True
        log.critical("spool_segment_damaged", path=str(path), offset=damage.offset, bytes=lost)
        return False

    async def _send(self, events: list[tuple[bytes, bytes]]) -> None:
        if not events:
            return
        backoff = Backoff()
        while True:
            try:
                await self._publisher.send(events)
            except Unavailable as error:
                log.info("spool_waits", events=len(events), reason=str(error))
                await backoff.wait()
            else:
                SHIPPED.inc(len(events))
                return


def _read(path: Path, offset: int, length: int) -> bytes:
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.pread(file, length, offset)
    finally:
        os.close(file)
