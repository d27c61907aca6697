"""Up to when balances hold what was received, as `usage.balances.v1` itself says it.

Where nothing is counted, or nothing of it becomes a balance, the topic is silent, and so it is where nothing is used:
whoever follows it could not tell one from the other. So the watermark goes out behind the balances that it is true of.
"""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Final

from aiokafka import AIOKafkaProducer
from sqlalchemy import TextClause, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from tenantry import uuid7
from tenantry.entitlements import WATERMARK_KEY
from tenantry.events import Event, KafkaSettings, encode
from usage_service.domain.instants import rfc3339
from usage_service.entitlements.records import TOPIC, BalanceRecord
from usage_service.publishing.held import hold

_WORK: Final = 101  # beside the lanes and the cuts
_PAUSE_SECONDS: Final = 2.0
_POLL_SECONDS: Final = 0.2
_SOURCE: Final = "usage"
_TYPE: Final = "usage.balances-watermark"

_WATERMARK: Final = text("SELECT min(received_until) FROM system.partition_progress")
_NOW: Final = text("SELECT clock_timestamp()")
# What is counted passes these queues on its way into the topic, and leaves each in the transaction that puts it into
# the next: the mark of a queue is set when the one before it has passed its own.
_QUEUES: Final[tuple[tuple[TextClause, TextClause], ...]] = (
    (_NOW, text("SELECT EXISTS (SELECT FROM system.rollup_change WHERE created_at <= :mark)")),
    (
        text("SELECT COALESCE(max(id), 0) FROM system.balance_change"),
        text("SELECT EXISTS (SELECT FROM system.balance_change WHERE id <= :mark)"),
    ),
    (_NOW, text(f"SELECT EXISTS (SELECT FROM system.outbox WHERE topic = '{TOPIC}' AND created_at <= :mark)")),  # noqa: S608 - a constant
)


class BalanceWatermark:
    """Publishes the watermark of balances until cancelled; any number of processes may run one."""

    def __init__(self, engine: AsyncEngine, kafka: KafkaSettings) -> None:
        self._engine = engine
        self._kafka = kafka

    async def run(self) -> None:
        await hold(self._engine, self._kafka, number=_WORK, name="balances-watermark", work=self._work)

    async def _work(self, connection: AsyncConnection, producer: AIOKafkaProducer) -> None:
        told = None
        while True:
            reached = await reached_by_balances(connection)
            if reached != told:
                await self._publish(producer, reached)
                told = reached
            await asyncio.sleep(_PAUSE_SECONDS)

    async def _publish(self, producer: AIOKafkaProducer, reached: datetime | None) -> None:
        now = datetime.now(UTC)
        tenant, _, feature = WATERMARK_KEY.partition("/")
        record = None
        if reached is not None:
            record = BalanceRecord(tenant_id=tenant, feature=feature, has_access=False, config=rfc3339(reached))
        key, value, headers = encode(
            Event(
                id=uuid7(),
                type=_TYPE,
                source=_SOURCE,
                key=WATERMARK_KEY,
                tenant_id=None,
                time=now,
                data=record,
                version=int(now.timestamp() * 1_000_000),
            )
        )
        async with producer.transaction():
            # The commit does not ask whether the record arrived, so it must wait for it.
            await producer.send_and_wait(self._kafka.topic(TOPIC), key=key, value=value, headers=headers)


async def reached_by_balances(connection: AsyncConnection) -> datetime | None:
    """The watermark of counting when this was called, once all that it covers is published; None before the first.

    `connection` is in autocommit mode. Waits for as long as something stands in a queue.
    """
    reached: datetime | None = await connection.scalar(_WATERMARK)
    for mark, is_waiting in _QUEUES:
        parameters = {"mark": await connection.scalar(mark)}
        while await connection.scalar(is_waiting, parameters):  # noqa: ASYNC110 (a table gives no event)
            await asyncio.sleep(_POLL_SECONDS)
    return reached
