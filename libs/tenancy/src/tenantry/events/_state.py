"""Reads compacted topics into local memory: all of them first, then whatever follows."""

import asyncio
import time
from collections.abc import Callable, Collection
from typing import Final

import structlog
from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from aiokafka.errors import KafkaError
from prometheus_client import Counter, Gauge

from tenantry._backoff import Backoff
from tenantry.events._envelope import InvalidRecord
from tenantry.events._settings import KafkaSettings
from tenantry.events._waiting import stop_client

log = structlog.get_logger(__name__)

SKIPPED = Counter("state_records_skipped_total", "Documents of a state topic that could not be read", ["topic"])
UNREAD = Gauge("tenantry_directory_lag_records", "Records that a local copy of state topics has not read", ["topics"])
LAG_SECONDS = Gauge("state_lag_seconds", "How old the local copy of a state topic may be", ["topics"])

_POLL_MS: Final = 500
# A position that does not move over two answered fetches (500 ms each) has nothing behind it.
_SETTLED_MS: Final = 1_000

Apply = Callable[["ConsumerRecord[bytes, bytes]"], None]


class StateReader:
    """Feeds every committed record of some topics to `apply`, from the first one, without a consumer group.

    Records of one key come in order; a document may come again (the relay republishes after a crash), so `apply` keeps
    the highest version. It must not block. What it refuses with `InvalidRecord`, or fails on, is counted and skipped:
    one bad document must not hide all later ones.
    """

    def __init__(
        self,
        kafka: KafkaSettings,
        topics: Collection[str],
        apply: Apply,
        *,
        on_batch: Callable[[], None] | None = None,
    ) -> None:
        """`topics` are given without prefix; `on_batch` is called after each batch that was applied."""
        self._kafka = kafka
        self._topics = [kafka.topic(topic) for topic in topics]
        self._apply = apply
        self._on_batch = on_batch
        self._name = ",".join(topics)
        self._caught_up = asyncio.Event()
        self._current_at: float | None = None
        self._stalled: dict[TopicPartition, tuple[int, int]] = {}
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Returns when every topic has been read to the end that it had when reading began; then follows.

        Waits for Kafka and for missing topics for ever; wrap it in a timeout where that is too long. `stop` it even if
        it was cancelled.
        """
        # Asked for, not noted: it grows while nothing is read.
        LAG_SECONDS.labels(self._name).set_function(lambda: self.lag_seconds)
        self._task = asyncio.create_task(self._follow(), name=f"state {self._name}")
        await self._caught_up.wait()

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
            self._task = None

    @property
    def caught_up(self) -> bool:
        """Whether the end was reached once; never becomes false again."""
        return self._caught_up.is_set()

    @property
    def lag_seconds(self) -> float:
        """How old the local state may be: seconds since all partitions were last known to be read to their end.

        Below one second while the broker answers and nothing is unread; infinite before the first time.
        """
        if self._current_at is None:
            return float("inf")
        return max(0.0, time.time() - self._current_at)

    async def _follow(self) -> None:
        backoff = Backoff()
        while True:
            consumer = AIOKafkaConsumer(
                *self._topics,
                **self._kafka.client_options(),
                group_id=None,
                enable_auto_commit=False,
                auto_offset_reset="earliest",
                isolation_level="read_committed",
                fetch_max_wait_ms=_POLL_MS,
            )
            try:
                await consumer.start()
                await self._read(consumer, backoff)
            except (KafkaError, OSError) as error:
                log.warning("state_reader_waits", topics=self._name, error=repr(error))
            except Exception:
                log.exception("state_reader_failed", topics=self._name)
            finally:
                await stop_client(consumer)
            await backoff.wait()

    async def _read(self, consumer: AIOKafkaConsumer, backoff: Backoff) -> None:
        # The ends are read under read_committed, so an open transaction does not hold up the start.
        ends = await consumer.end_offsets(consumer.assignment())
        self._stalled.clear()
        while True:
            fetched = await consumer.getmany(timeout_ms=_POLL_MS)
            for records in fetched.values():
                for record in records:
                    self._apply_one(record)
            backoff.reset()
            if ends:
                ends = {
                    partition: end
                    for partition, end in ends.items()
                    if not await self._reached(consumer, partition, end)
                }
            if not ends:
                if not self._caught_up.is_set():
                    log.info("state_caught_up", topics=self._name)
                    self._caught_up.set()
                await self._note_age(consumer)
            if fetched and self._on_batch is not None:
                self._on_batch()

    def _apply_one(self, record: "ConsumerRecord[bytes, bytes]") -> None:
        try:
            self._apply(record)
        except InvalidRecord as error:
            SKIPPED.labels(record.topic).inc()
            log.error("state_record_invalid", error=str(error))  # noqa: TRY400 - the reason says it all
        except Exception:
            SKIPPED.labels(record.topic).inc()
            log.exception("state_record_failed", topic=record.topic, partition=record.partition, offset=record.offset)

    async def _reached(self, consumer: AIOKafkaConsumer, partition: TopicPartition, end: int) -> bool:
        position = await consumer.position(partition)
        if position >= end:
            return True
        # Compaction can remove the very last records of a partition. Then the position never gets to the end: the
        # broker answers fetches with nothing, and that is how one knows.
        answered = consumer.last_poll_timestamp(partition) or 0
        stalled_at, since = self._stalled.setdefault(partition, (position, answered))
        if stalled_at != position:
            self._stalled[partition] = (position, answered)
            return False
        return answered - since >= _SETTLED_MS

    async def _note_age(self, consumer: AIOKafkaConsumer) -> None:
        oldest: float | None = None
        behind = 0
        is_known = True
        for partition in consumer.assignment():
            answered = consumer.last_poll_timestamp(partition)
            unread = (consumer.last_stable_offset(partition) or 0) - await consumer.position(partition)
            if unread > 0 and partition not in self._stalled:
                behind += unread
            if answered is None:
                is_known = False
            else:
                oldest = answered if oldest is None else min(oldest, answered)
        UNREAD.labels(self._name).set(behind)
        if behind or not is_known:
            return
        self._current_at = time.time() if oldest is None else oldest / 1000
