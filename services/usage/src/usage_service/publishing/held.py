"""A piece of work that one process at a time does, with a fenced Kafka producer.

The holder has a session lock on a connection of its own, and reads and clears its queue over that same connection: to
lose the lock is to lose the queue. One that lost it without noticing (a connection cut by a firewall, a process that
was stopped for a minute) is fenced by Kafka, because the next holder starts a producer with the same transactional id
before it reads anything.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final

import structlog
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from tenantry.events import KafkaSettings

log = structlog.get_logger(__name__)

Work = Callable[[AsyncConnection, AIOKafkaProducer], Awaitable[None]]
"""Works for ever, on a connection in autocommit mode and a producer that is about to begin its first transaction."""

_LOCK_CLASS: Final = 0x75736765  # "usge": first half of the advisory lock's key; the second is the piece of work
_CONTEND_SECONDS: Final = 1.0
_PAUSE_SECONDS: Final = 1.0
_STOP_SECONDS: Final = 2.0
_TRY_LOCK: Final = text("SELECT pg_try_advisory_lock(:lock_class, :work)")


async def hold(engine: AsyncEngine, kafka: KafkaSettings, *, number: int, name: str, work: Work) -> None:
    """Does the work whenever this process gets to hold it; starts over after any failure. Cancel it to stop.

    `number` and `name` identify the work among those of the service, for ever: the lock and the transactional id come
    from them.
    """
    while True:
        try:
            async with engine.connect() as opened:
                connection = await opened.execution_options(isolation_level="AUTOCOMMIT")
                try:
                    while not await connection.scalar(  # noqa: ASYNC110 (a server's lock gives no event)
                        _TRY_LOCK, {"lock_class": _LOCK_CLASS, "work": number}
                    ):
                        await asyncio.sleep(_CONTEND_SECONDS)
                    await _with_producer(connection, kafka, name, work)
                finally:
                    # A pooled connection would carry the session lock on to its next user.
                    await connection.invalidate()
        except Exception as error:  # noqa: BLE001 (the work is retried for ever; the log says why it stands)
            log.warning("usage_work_failed", work=name, error=repr(error))
        await asyncio.sleep(_PAUSE_SECONDS)


async def keep_at(name: str, work: Callable[[], Awaitable[None]]) -> None:
    """Does work that any number of processes may do; starts over after any failure. Cancel it to stop."""
    while True:
        try:
            await work()
        except Exception as error:  # noqa: BLE001 (a server that is away ends a try, not the process)
            log.warning("usage_work_failed", work=name, error=repr(error))
        await asyncio.sleep(_PAUSE_SECONDS)


async def _with_producer(connection: AsyncConnection, kafka: KafkaSettings, name: str, work: Work) -> None:
    producer = AIOKafkaProducer(
        **kafka.client_options(),
        transactional_id=kafka.transactional_id(f"usage-{name}"),
        client_id=f"usage-{name}",
        linger_ms=2,
        max_batch_size=256 * 1024,
    )
    try:
        # Fences every earlier holder, so it comes before the first read.
        await producer.start()
        log.info("usage_work_held", work=name)
        await work(connection, producer)
    finally:
        with suppress(TimeoutError, KafkaError, OSError, AssertionError):
            async with asyncio.timeout(_STOP_SECONDS):
                await producer.stop()
