"""Publishes a service's outbox.

Order per key is the order of versions, never the order of ids: a transaction that started first may commit last, so
"id greater than the last one" would skip its rows for ever. The relay reads whatever is visible in (key, version)
order and deletes by id what Kafka has.

Each lane is held by one relay. The holder has a session lock on a connection of its own, and everything it reads and
deletes goes through that connection, so that losing the lock and losing the outbox are the same event. A holder that
has lost it without noticing is fenced by Kafka: the next one starts a producer with the same transactional id before
it reads a row. Without that, a late publication of a stale document would outlive the newer one in a compacted topic,
because compaction keeps the last offset, not the highest version.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Iterable, Mapping, Sequence
from typing import Any, Final

import msgspec
import structlog
from aiokafka import AIOKafkaProducer
from aiokafka.errors import InvalidProducerEpoch, ProducerFenced
from prometheus_client import Counter, Gauge
from sqlalchemy import Row, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from tenantry import StartupRefused
from tenantry._backoff import Backoff
from tenantry.database import Databases
from tenantry.events._envelope import Event, encode
from tenantry.events._outbox import CHANNEL, LANES
from tenantry.events._sent_once import SentOnce
from tenantry.events._settings import KafkaSettings
from tenantry.events._tracing import span_of_sent
from tenantry.events._waiting import is_away, stop_client

log = structlog.get_logger(__name__)

PUBLISHED = Counter("outbox_published_total", "Events published from the outbox", ["service"])
OLDEST = Gauge("outbox_oldest_seconds", "Age of the oldest row that is not published", ["service", "lane"])
HELD = Gauge("outbox_lane_held", "1 where this process holds the lane", ["service", "lane"])

# First half of the advisory lock's key ("outb"); the second is the lane. Locks are per database, so per service.
_LOCK_CLASS: Final = 0x6F757462
_BATCH: Final = 500
_POLL_SECONDS: Final = 0.25
# How long a loser waits before it asks for the lane again, and the longest pause after a failure: state that people
# wait for (a suspension) stands still as long.
_CONTEND_SECONDS: Final = 1.0

_TRY_LOCK: Final = text("SELECT pg_try_advisory_lock(:lock_class, :lane)")
_READ: Final = text(
    """
    SELECT id, topic, key, version, tenant_id, type, headers::text AS headers, payload, created_at,
           EXTRACT(EPOCH FROM clock_timestamp() - created_at)::float8 AS age
      FROM system.outbox WHERE lane = :lane ORDER BY key, version, id LIMIT :batch
    """
)
_DELETE: Final = text("DELETE FROM system.outbox WHERE id = ANY(:ids)")

_decode_headers: Final = msgspec.json.Decoder(dict[str, str]).decode


class OutboxRelay:
    """Publishes the outbox rows of one service until cancelled; any number of processes may run one."""

    def __init__(
        self,
        service: str,
        system_engine: AsyncEngine,
        kafka: KafkaSettings,
        lanes: int | Iterable[int] = LANES,
        *,
        store: str | None = None,
    ) -> None:
        """`lanes`: which of the service's lanes to contend for, a count or their numbers; by default all.

        `store` names the store of `system_engine` where it is not the service's own: its lanes are others.
        """
        self._service = service
        self._place = "" if store is None else f"{store}-"
        self._engine = system_engine
        self._kafka = kafka
        self._lanes = list(range(lanes) if isinstance(lanes, int) else lanes)
        self._wakes = {lane: asyncio.Event() for lane in self._lanes}

    async def run(self) -> None:
        """Publishes for ever; waits with back-off while PostgreSQL or Kafka is away. Cancel it to stop."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._listen())
            for lane in self._lanes:
                tasks.create_task(self._contend(lane))

    async def _listen(self) -> None:
        """Wakes the lanes that a writer notified, and all of them every 250 ms for what a notification missed."""
        while True:
            try:
                async with self._engine.connect() as connection:
                    await self._wake_on_notifications(connection)
            except Exception as error:
                if not is_away(error):
                    raise
                await asyncio.sleep(_POLL_SECONDS)

    async def _wake_on_notifications(self, connection: AsyncConnection) -> None:
        driver = (await connection.get_raw_connection()).driver_connection
        assert driver is not None
        closed = asyncio.get_running_loop().create_future()

        def notified(_connection: object, _pid: int, _channel: str, payload: object) -> None:
            wake = self._wakes.get(int(str(payload)))
            if wake is not None:
                wake.set()

        def terminated(_connection: object) -> None:
            if not closed.done():
                closed.set_result(None)

        driver.add_termination_listener(terminated)
        await driver.add_listener(CHANNEL, notified)
        try:
            while not closed.done():
                for wake in self._wakes.values():
                    wake.set()
                await asyncio.wait([closed], timeout=_POLL_SECONDS)
        finally:
            driver.remove_termination_listener(terminated)
            if not driver.is_closed():
                with contextlib.suppress(OSError):
                    await driver.remove_listener(CHANNEL, notified)

    async def _contend(self, lane: int) -> None:
        backoff = Backoff(longest=_CONTEND_SECONDS)
        while True:
            try:
                async with self._engine.connect() as connection:
                    await connection.execution_options(isolation_level="AUTOCOMMIT")
                    try:
                        await self._acquire(connection, lane)
                        await self._hold(connection, lane, backoff)
                    finally:
                        # A pooled connection would carry the session lock on to its next user.
                        await connection.invalidate()
            except (ProducerFenced, InvalidProducerEpoch):
                log.warning("outbox_lane_fenced", service=self._service, lane=f"{self._place}{lane}")
            except Exception as error:  # noqa: BLE001 - a lane is retried for ever; the log says why it stands
                level = log.warning if is_away(error) else log.exception
                level("outbox_lane_failed", service=self._service, lane=f"{self._place}{lane}", error=repr(error))
            await backoff.wait()

    async def _acquire(self, connection: AsyncConnection, lane: int) -> None:
        # Asked again and again: waiting inside PostgreSQL would go on after this process was cancelled.
        while not await connection.scalar(_TRY_LOCK, {"lock_class": _LOCK_CLASS, "lane": lane}):  # noqa: ASYNC110
            await asyncio.sleep(_CONTEND_SECONDS)

    async def _hold(self, connection: AsyncConnection, lane: int, backoff: Backoff) -> None:
        name = f"{self._service}-outbox-{self._place}{lane}"
        producer = AIOKafkaProducer(
            **self._kafka.client_options(),
            transactional_id=self._kafka.transactional_id(name),
            client_id=name,
        )
        once = SentOnce(self._service, name, self._kafka)
        held = HELD.labels(self._service, f"{self._place}{lane}")
        try:
            # Fences every earlier holder, so it comes before the first row is read.
            await producer.start()
            await once.delete(connection)
            held.set(1)
            log.info("outbox_lane_held", service=self._service, lane=f"{self._place}{lane}")
            while True:
                self._wakes[lane].clear()
                while await self._publish(connection, producer, once, lane):
                    pass
                backoff.reset()
                await self._wakes[lane].wait()
        finally:
            held.set(0)
            await stop_client(producer)

    async def _publish(
        self, connection: AsyncConnection, producer: AIOKafkaProducer, once: SentOnce, lane: int
    ) -> bool:
        """Publishes a batch; whether there may be more."""
        found = (await connection.execute(_READ, {"lane": lane, "batch": _BATCH})).all()
        OLDEST.labels(self._service, f"{self._place}{lane}").set(max((row.age for row in found), default=0.0))
        if not found:
            return False
        rows = once.cut(found)
        await self._send(producer, rows, once)
        # Killed here, the next holder publishes most rows again: consumers drop a version that is not newer.
        await connection.execute(_DELETE, {"ids": [row.id for row in rows]})
        PUBLISHED.labels(self._service).inc(len(rows))
        return len(found) == _BATCH or len(rows) < len(found)

    async def _send(self, producer: AIOKafkaProducer, rows: Sequence[Row[Any]], once: SentOnce) -> None:
        async with producer.transaction():
            acknowledgements = [await self._send_one(producer, row) for row in rows]
            await once.note(producer, rows)
            # The commit does not ask whether the records arrived, so it must wait for them.
            await asyncio.gather(*acknowledgements)

    async def _send_one(self, producer: AIOKafkaProducer, row: Row[Any]) -> Awaitable[Any]:
        headers = _decode_headers(row.headers)
        with span_of_sent(row.topic, row.tenant_id, headers) as carried:
            key, _, encoded = encode(self._event(row, carried))
            sent: Awaitable[Any] = await producer.send(
                self._kafka.topic(row.topic), key=key, value=row.payload, headers=encoded
            )
            return sent

    def _event(self, row: Row[Any], headers: Mapping[str, str]) -> Event:
        return Event(
            id=row.id,
            type=row.type,
            source=self._service,
            key=row.key,
            tenant_id=row.tenant_id,
            time=row.created_at,
            data=None,
            version=row.version,
            headers=headers,
        )


async def relay_stores(service: str, databases: Databases, kafka: KafkaSettings) -> None:
    """Publishes the outbox of the service's own database and of each of its other stores, until cancelled.

    Raises `StartupRefused` where the process lacks the system role in one of them: what is written there would lie for
    ever, and nobody would know.
    """
    if unseen := databases.unseen_stores:
        raise StartupRefused(
            f"{service.upper()}_STORES has no system_database_url of {', '.join(unseen)}: "
            "the events of tenants there would not be published"
        )
    async with asyncio.TaskGroup() as tasks:
        for store in databases.stores:
            engine = databases.system if store is None else databases.system_of(store)
            tasks.create_task(OutboxRelay(service, engine, kafka, store=store).run())
