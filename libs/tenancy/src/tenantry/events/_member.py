"""One membership in a consumer group: from joining to being fenced, reading ahead while batches are applied."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, takewhile
from operator import attrgetter
from typing import Any, Final

import structlog
from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, TopicPartition
from aiokafka.errors import IllegalStateError, KafkaError, OffsetOutOfRangeError
from prometheus_client import Gauge
from sqlalchemy.ext.asyncio import AsyncEngine

from tenantry._backoff import Backoff
from tenantry.events._batches import Record
from tenantry.events._offsets import Claims, claim
from tenantry.events._waiting import is_away, stop_client

log = structlog.get_logger(__name__)

STOPPED = Gauge(
    "consumer_partition_stopped",
    "1 where a partition stands still because its next record is not there",
    ["group", "topic", "partition"],
)
LAG = Gauge("consumer_lag_records", "Records of a partition that are not committed", ["group", "topic", "partition"])

# How long a revoked member may finish the transaction it is in. Below the session timeout, in which the group waits.
_DRAIN_SECONDS: Final = 4.0
_IDLE_POLL_MS: Final = 500
# The shortest session that brokers allow by default: partitions of a killed member stand still that long.
_SESSION_MS: Final = 6_000
_HEARTBEAT_MS: Final = 1_000
_REPORT_SECONDS: Final = 5.0

_size = attrgetter("serialized_value_size")


@dataclass(slots=True)
class Batch:
    """Records of one assignment, grouped by partition as they were fetched, and where reading goes on after them."""

    claims: Claims
    records: list[Record] = field(default_factory=list)
    size: int = 0
    next_offsets: dict[TopicPartition, int] = field(default_factory=dict)


OnAssigned = Callable[[frozenset[TopicPartition]], Awaitable[None]]


class Member(ConsumerRebalanceListener):  # type: ignore[misc]
    """Reads batches of the partitions that the group assigns to it and that it has claimed in the database."""

    def __init__(
        self,
        *,
        client_options: Mapping[str, Any],
        engine: AsyncEngine,
        group: str,
        topics: Sequence[str],
        max_records: int,
        max_bytes: int,
        max_wait: float,
        contiguous: bool,
        on_assigned: OnAssigned | None,
    ) -> None:
        self._consumer = AIOKafkaConsumer(
            **client_options,
            group_id=group,
            enable_auto_commit=False,
            auto_offset_reset="none",
            heartbeat_interval_ms=_HEARTBEAT_MS,
            session_timeout_ms=_SESSION_MS,
        )
        self._engine = engine
        self._group = group
        self._topics = topics
        self._max_records = max_records
        self._max_bytes = max_bytes
        self._max_wait = max_wait
        self._contiguous = contiguous
        self._on_assigned = on_assigned

        # The current assignment: not yet claimed, or claimed. Neither between a revocation and the next assignment.
        self._unclaimed: frozenset[TopicPartition] | None = None
        self.claims: Claims | None = None
        self._positions: dict[TopicPartition, int] = {}
        # Fetched, but more than the batch may hold: it begins the next one. Each with the position behind it.
        self._rest: dict[TopicPartition, tuple[list[Record], int]] = {}
        self._assigned = asyncio.Event()

        self._batch: Batch | None = None
        self._deadline = 0.0
        self._arrived = asyncio.Event()
        self._full = asyncio.Event()
        self._room = asyncio.Event()
        self._failure: BaseException | None = None

        self.stopped: dict[TopicPartition, str] = {}
        self.applying: asyncio.Future[None] | None = None
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        await self._consumer.start()
        self._consumer.subscribe(topics=self._topics, listener=self)
        self._tasks = [asyncio.create_task(self._read()), asyncio.create_task(self._report())]

    async def stop(self) -> None:
        """Leaves the group; never raises."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        await stop_client(self._consumer)
        for partition in self.stopped:
            STOPPED.remove(self._group, partition.topic, str(partition.partition))

    # Called by aiokafka's coordinator. No heartbeat is sent before the second one returns, so it must not wait for
    # the database: the claim is made by the reading task, on partitions that stay paused until then.

    async def on_partitions_revoked(self, revoked: set[TopicPartition]) -> None:  # noqa: ARG002
        self.claims = self._unclaimed = None
        self._assigned.clear()
        self._rest = {}
        self._discard()
        if self.applying is not None and not self.applying.done():
            # The commit may still win; if it does not, the next owner's epoch refuses it.
            await asyncio.wait([self.applying], timeout=_DRAIN_SECONDS)

    async def on_partitions_assigned(self, assigned: set[TopicPartition]) -> None:
        self._consumer.pause(*assigned)
        self._unclaimed = frozenset(assigned)
        self._assigned.set()

    async def take(self) -> Batch:
        """The next batch, as soon as it is full or its first record is `max_wait` old; raises what ended the reading.

        A batch without records moves offsets past transaction markers.
        """
        while True:
            await self._arrived.wait()
            if self._failure is not None:
                raise self._failure
            patience = self._deadline - asyncio.get_running_loop().time()
            if patience > 0 and not self._full.is_set():
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(patience):
                        await self._full.wait()
            batch = self._batch
            if batch is not None:
                self._discard()
                return batch

    def _discard(self) -> None:
        self._batch = None
        if self._failure is None:
            self._arrived.clear()
            self._full.clear()
        self._room.set()

    async def _read(self) -> None:
        try:
            while True:
                await self._assigned.wait()
                if self._unclaimed is not None:
                    await self._claim(self._unclaimed)
                elif self._full.is_set():
                    self._room.clear()
                    await self._room.wait()
                else:
                    await self._fetch()
        except Exception as error:  # noqa: BLE001 - handed to whoever takes the next batch
            self._failure = error
            self._arrived.set()
            self._full.set()

    async def _claim(self, assigned: frozenset[TopicPartition]) -> None:
        earliest = await self._consumer.beginning_offsets(sorted(assigned)) if assigned else {}
        backoff = Backoff()
        while self._unclaimed is assigned:
            try:
                async with self._engine.begin() as connection:
                    claims = await claim(connection, self._group, earliest)
                if self._on_assigned is not None:
                    await self._on_assigned(assigned)
            except Exception as error:
                if not is_away(error):
                    raise
                log.warning("consumer_waits_for_database", group=self._group, error=repr(error))
                await backoff.wait()
            else:
                break
        # From here to the resume nothing is awaited: the assignment that is seeked is the one that was claimed.
        if self._unclaimed is not assigned:
            return
        for partition, mine in claims.items():
            self._consumer.seek(partition, mine.next_offset)
        self._positions = {partition: mine.next_offset for partition, mine in claims.items()}
        self._unclaimed = None
        self.claims = claims
        self._consumer.resume(*(assigned - self.stopped.keys()))
        log.info("consumer_assigned", group=self._group, partitions=len(assigned))

    async def _fetch(self) -> None:
        claims = self.claims
        if claims is not None and self._rest:
            self._add_all(claims, self._rest)
            return
        room = self._max_records - (len(self._batch.records) if self._batch else 0)
        try:
            fetched = await self._consumer.getmany(timeout_ms=_IDLE_POLL_MS, max_records=room)
        except OffsetOutOfRangeError as error:
            for partition, offset in error.args[0].items():
                self._stop_partition(partition, f"offset {offset} is out of range")
            return
        if claims is None or self.claims is not claims:
            return
        # An idle poll looks at every partition: positions also move past transaction markers, which are no records.
        positions = {
            partition: await self._consumer.position(partition)  # never waits: the partition was seeked
            for partition in (fetched or claims)
        }
        self._add_all(claims, {partition: (records, positions[partition]) for partition, records in fetched.items()})
        if not fetched:
            for partition, position in positions.items():
                if position > self._positions[partition]:
                    self._add(claims, partition, [], position)

    def _add_all(self, claims: Claims, fetched: Mapping[TopicPartition, tuple[list[Record], int]]) -> None:
        """Adds what the batch has room for, and keeps the rest for the next one."""
        self._rest = {}
        for partition, (records, position) in fetched.items():
            if not self._follows(partition, records):
                continue
            fitting = self._fitting(records)
            if fitting:
                after = position if fitting == len(records) else records[fitting].offset
                self._add(claims, partition, records[:fitting], after)
            if fitting < len(records):
                self._rest[partition] = (records[fitting:], position)
        if self._rest or (self._batch is not None and len(self._batch.records) >= self._max_records):
            self._full.set()

    def _fitting(self, records: Sequence[Record]) -> int:
        """How many of the records the batch may take. One that is larger than any batch has a batch for itself."""
        room = self._max_bytes - (self._batch.size if self._batch else 0)
        if sum(map(_size, records)) <= room:
            return len(records)
        if self._batch is None and _size(records[0]) > room:
            return 1
        sizes = accumulate(map(_size, records))
        return sum(1 for _ in takewhile(room.__ge__, sizes))

    def _follows(self, partition: TopicPartition, records: Sequence[Record]) -> bool:
        """Whether the records go on where the last ones ended; a partition where they do not is stopped."""
        expected, first, last = self._positions[partition], records[0].offset, records[-1].offset
        if partition in self.stopped:
            return False
        whole = not self._contiguous or (first == expected and last - first == len(records) - 1)
        follows = bool(whole and first >= expected)
        if not follows:
            self._stop_partition(partition, f"expected offset {expected}, got {len(records)} from {first} to {last}")
        return follows

    def _add(self, claims: Claims, partition: TopicPartition, records: list[Record], position: int) -> None:
        if self._batch is None:
            self._batch = Batch(claims)
            self._deadline = asyncio.get_running_loop().time() + self._max_wait
            self._arrived.set()
        self._batch.records += records
        self._batch.size += sum(map(_size, records))
        self._batch.next_offsets[partition] = self._positions[partition] = position

    def _stop_partition(self, partition: TopicPartition, reason: str) -> None:
        """Never jumps over records that are not there: an operator decides, the other partitions go on."""
        log.critical(
            "consumer_partition_stopped",
            group=self._group,
            topic=partition.topic,
            partition=partition.partition,
            reason=reason,
        )
        STOPPED.labels(self._group, partition.topic, str(partition.partition)).set(1)
        self.stopped[partition] = reason
        with contextlib.suppress(IllegalStateError):
            self._consumer.pause(partition)

    async def _report(self) -> None:
        """Tells Kafka and the metrics how far the database is, for people and tools that watch lag."""
        while True:
            await asyncio.sleep(_REPORT_SECONDS)
            if not self.claims:
                continue
            offsets = {partition: mine.next_offset for partition, mine in self.claims.items()}
            for partition, offset in offsets.items():
                with contextlib.suppress(IllegalStateError):
                    end = self._consumer.last_stable_offset(partition) or offset
                    LAG.labels(self._group, partition.topic, str(partition.partition)).set(max(0, end - offset))
            with contextlib.suppress(KafkaError):
                await self._consumer.commit(offsets)
