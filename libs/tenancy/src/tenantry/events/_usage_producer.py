"""Sends usage events as fast as one process can, and says of each list whether Kafka has all of it.

Events of concurrent callers share one growing batch a partition. While a partition's batch is on its way its next one
fills, so batches grow with the load and a single event is sent at once. `create_batch`/`send_batch` is more than twice
as fast here as a `send` for each record, whose futures cost more than the record.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import Sequence
from typing import Any, Final

import structlog
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError
from aiokafka.partitioner import murmur2
from prometheus_client import Counter, Gauge

from tenantry import Unavailable
from tenantry._backoff import Backoff
from tenantry._timeouts import SharedTimeout
from tenantry.events._settings import KafkaSettings
from tenantry.events._tracing import with_origin
from tenantry.events._usage import USAGE_EVENTS, USAGE_HEADERS
from tenantry.events._waiting import stop_client

log = structlog.get_logger(__name__)

ACKNOWLEDGED = Counter("usage_producer_events_total", "Usage events that Kafka has acknowledged")
REFUSED = Counter("usage_producer_refused_total", "Lists that were not acknowledged", ["reason"])
PENDING = Gauge("usage_producer_pending_bytes", "Bytes of usage events that are not acknowledged yet")

_MAX_PENDING_BYTES: Final = 64 << 20
_DELIVERY_SECONDS: Final = 5.0
_BATCH_BYTES: Final = 256 << 10
_REQUEST_BYTES: Final = 8 << 20
# The largest event: below the broker's max.message.bytes with headers and the frame of a batch.
_MAX_EVENT_BYTES: Final = 900_000
# What a record costs beside key and value: the header, lengths and the place in the list.
_RECORD_OVERHEAD: Final = 80
_CACHED_KEYS: Final = 200_000
_RETRY_AFTER: Final = 1


class _List:
    """A caller's list: how many batches it is still spread over, and the future that the caller waits for."""

    __slots__ = ("acknowledged", "batches")

    def __init__(self, acknowledged: asyncio.Future[None]) -> None:
        self.acknowledged = acknowledged
        self.batches = 0


class _Batch:
    """Events of one partition that travel together, with the lists that wait for them."""

    __slots__ = ("builder", "events", "lists", "size")

    def __init__(self, builder: Any) -> None:
        self.builder = builder
        self.lists: list[_List] = []
        self.events = 0
        self.size = 0


class _Partition:
    """A partition's batches: the first is on its way or about to be, the last one still grows."""

    __slots__ = ("batches", "number", "sent_at", "wake")

    def __init__(self, number: int) -> None:
        self.number = number
        self.batches: deque[_Batch] = deque()
        self.wake = asyncio.Event()
        # When the batch on its way was handed to the client; None while none is.
        self.sent_at: float | None = None


class UsageProducer:
    """An idempotent producer (acks=all) of `usage.events.v1` for many concurrent callers of one event loop.

    Keys are placed as Kafka's own clients place them (murmur2), so any producer finds the same partition.
    """

    def __init__(
        self,
        kafka: KafkaSettings,
        *,
        max_pending_bytes: int = _MAX_PENDING_BYTES,
        delivery_seconds: float = _DELIVERY_SECONDS,
        topic: str = USAGE_EVENTS,
    ) -> None:
        """Never holds more than `max_pending_bytes` of events; `topic` is given without prefix."""
        self._options = kafka.client_options()
        self._topic = kafka.topic(topic)
        self._max_pending = max_pending_bytes
        self._delivery_seconds = delivery_seconds
        self._delivery = SharedTimeout(delivery_seconds)
        self._producer: AIOKafkaProducer | None = None
        self._partitions: list[_Partition] = []
        self._places: dict[bytes, int] = {}
        self._pending = 0
        self._task: asyncio.Task[None] | None = None
        self._connected = asyncio.Event()

    @property
    def ready(self) -> bool:
        """Whether Kafka took what it was sent lately."""
        now = asyncio.get_running_loop().time()
        return self._producer is not None and not any(self._is_stalled(each, now) for each in self._partitions)

    @property
    def pending_bytes(self) -> int:
        return self._pending

    async def start(self) -> None:
        """Begins to connect in the background and waits a moment for it; Kafka may be away."""
        self._task = asyncio.create_task(self._run(), name="usage producer")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._delivery_seconds):
                await self._connected.wait()

    async def stop(self) -> None:
        """Gives pending events a last moment to be acknowledged, then closes; lists still open get `Unavailable`."""
        if self._task is None:
            return
        waiting = [
            batch.lists[-1].acknowledged for partition in self._partitions for batch in partition.batches if batch.lists
        ]
        if waiting:
            await asyncio.wait(waiting, timeout=self._delivery_seconds)
        self._task.cancel()
        await asyncio.wait([self._task])
        self._task = None

    async def send(self, events: Sequence[tuple[bytes, bytes]]) -> None:
        """Returns when Kafka has acknowledged every (key, value) on all in-sync replicas.

        Raises `Unavailable` at once, with nothing sent, while the broker does not answer or the pending events fill
        their bound. Raises it after the delivery time where the acknowledgement did not come: the events may yet
        count, and as they carry their ids a repetition is safe. An event above 900,000 bytes is a `ValueError`.
        """
        if not events:
            return
        producer = self._producer
        if producer is None:
            raise self._refusal("away", "Kafka is not reachable")
        size = sum(len(key) + len(value) for key, value in events) + _RECORD_OVERHEAD * len(events)
        if self._pending + size > self._max_pending:
            raise self._refusal("full", "too many events wait for Kafka")
        if size > _MAX_EVENT_BYTES and max(len(key) + len(value) for key, value in events) > _MAX_EVENT_BYTES:
            raise ValueError(f"an event has more than {_MAX_EVENT_BYTES} bytes")
        places = self._place(events)
        partitions = self._partitions
        loop = asyncio.get_running_loop()
        now = loop.time()
        for place in set(places):
            if self._is_stalled(partitions[place], now):
                raise self._refusal("away", "Kafka does not answer")

        waiting = _List(loop.create_future())
        self._append(producer, events, places, waiting)
        try:
            with self._delivery():
                await waiting.acknowledged
        except TimeoutError:
            raise self._refusal("timeout", "not acknowledged, may yet count; repeating is safe") from None
        ACKNOWLEDGED.inc(len(events))

    def _place(self, events: Sequence[tuple[bytes, bytes]]) -> list[int]:
        try:
            # Nearly always all keys are known, and then this is one pass without a branch.
            known = self._places
            return [known[key] for key, _ in events]
        except KeyError:
            if len(self._places) > _CACHED_KEYS:
                self._places.clear()
            count = len(self._partitions)
            for key, _ in events:
                if key not in self._places:
                    self._places[key] = (murmur2(key) & 0x7FFFFFFF) % count
            return [self._places[key] for key, _ in events]

    def _append(
        self, producer: AIOKafkaProducer, events: Sequence[tuple[bytes, bytes]], places: list[int], waiting: _List
    ) -> None:
        partitions = self._partitions
        first_headers = with_origin(USAGE_HEADERS)
        for (key, value), place in zip(events, places, strict=True):
            partition = partitions[place]
            batches = partition.batches
            # The first batch is closed to new events from the moment it is handed to the client.
            if not batches or (partition.sent_at is not None and len(batches) == 1):
                batches.append(_Batch(producer.create_batch()))
                partition.wake.set()
            batch = batches[-1]
            # Of a list in a batch the first record says in which trace they all stand.
            is_first = not batch.lists or batch.lists[-1] is not waiting
            headers = first_headers if is_first else USAGE_HEADERS
            if batch.builder.append(timestamp=None, key=key, value=value, headers=headers) is None:
                batch, is_first = _Batch(producer.create_batch()), True
                batches.append(batch)
                batch.builder.append(timestamp=None, key=key, value=value, headers=first_headers)
            if is_first:
                batch.lists.append(waiting)
                waiting.batches += 1
            batch.events += 1
            batch.size += len(key) + len(value) + _RECORD_OVERHEAD
            self._pending += len(key) + len(value) + _RECORD_OVERHEAD

    def _is_stalled(self, partition: _Partition, now: float) -> bool:
        sent_at = partition.sent_at
        return sent_at is not None and now - sent_at > self._delivery_seconds

    def _refusal(self, reason: str, detail: str) -> Unavailable:
        REFUSED.labels(reason).inc()
        return Unavailable(detail, retry_after=_RETRY_AFTER)

    async def _run(self) -> None:
        """Connects, and again whenever the client has failed for good (it does not recover from a lost sequence)."""
        backoff = Backoff()
        while True:
            producer = AIOKafkaProducer(
                **self._options,
                enable_idempotence=True,
                max_batch_size=_BATCH_BYTES,
                max_request_size=_REQUEST_BYTES,
                request_timeout_ms=int(self._delivery_seconds * 1000),
            )
            try:
                await producer.start()
                count = len(await producer.partitions_for(self._topic))
                await self._pump(producer, count, backoff)
            except (KafkaError, OSError, TimeoutError) as error:
                log.warning("usage_producer_waits", error=repr(error))
            except Exception:
                log.exception("usage_producer_failed")
            finally:
                self._producer = None
                self._connected.clear()
                self._abandon()
                await stop_client(producer)
            await backoff.wait()

    async def _pump(self, producer: AIOKafkaProducer, count: int, backoff: Backoff) -> None:
        self._partitions = [_Partition(number) for number in range(count)]
        self._places.clear()
        self._producer = producer
        self._connected.set()
        try:
            async with asyncio.TaskGroup() as pumps:
                for partition in self._partitions:
                    pumps.create_task(self._pump_partition(producer, partition, backoff))
        except* KafkaError as failures:
            raise KafkaError(repr(failures.exceptions[0])) from None

    async def _pump_partition(self, producer: AIOKafkaProducer, partition: _Partition, backoff: Backoff) -> None:
        loop = asyncio.get_running_loop()
        while True:
            while not partition.batches:
                partition.wake.clear()
                await partition.wake.wait()
            batch = partition.batches[0]
            partition.sent_at = loop.time()
            acknowledged = await producer.send_batch(batch.builder, self._topic, partition=partition.number)
            await acknowledged
            partition.batches.popleft()
            partition.sent_at = None
            self._settle(batch)
            backoff.reset()

    def _settle(self, batch: _Batch) -> None:
        self._pending -= batch.size
        PENDING.set(self._pending)
        for waiting in batch.lists:
            waiting.batches -= 1
            if not waiting.batches and not waiting.acknowledged.done():
                waiting.acknowledged.set_result(None)

    def _abandon(self) -> None:
        """Nobody will hear of these batches again: the callers are told that they may yet count."""
        for partition in self._partitions:
            for batch in partition.batches:
                for waiting in batch.lists:
                    if not waiting.acknowledged.done():
                        waiting.acknowledged.set_exception(
                            self._refusal("lost", "not acknowledged, may yet count; repeating is safe")
                        )
        self._partitions = []
        self._pending = 0
        PENDING.set(0)
