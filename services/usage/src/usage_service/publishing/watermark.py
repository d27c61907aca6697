"""The watermark: the receipt time up to which every partition is counted.

The meter worker notes the receipt time of the last record of each batch, or of the first one that is parked. A
partition without traffic would hold the watermark back for ever, so where everything that Kafka had at time t is
counted, the partition is counted up to t. Kafka stamps records with its brokers' clocks and does not tell the time: t
is by the relay's clock or PostgreSQL's, whichever is behind.

The watermark is the least time of all partitions. One that was never counted has its row too, of long ago.
"""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Final

import structlog
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine

from tenantry import Unavailable
from tenantry.events import KafkaSettings
from usage_service.publishing.ends import TopicEnds

log = structlog.get_logger(__name__)

_PAUSE_SECONDS: Final = 1.0

# A partition that was never counted holds the watermark back, too.
_ADD = text(
    """
    INSERT INTO system.partition_progress (partition, received_until)
    SELECT partition, 'epoch' FROM unnest(CAST(:partitions AS int[])) AS partition ORDER BY 1
    ON CONFLICT DO NOTHING
    """
)
# Locked in the order in which batches lock them.
_ADVANCE = text(
    """
    INSERT INTO system.partition_progress AS progress (partition, received_until)
    SELECT ended.partition, LEAST(:now, now())
      FROM unnest(CAST(:partitions AS int[]), CAST(:ends AS bigint[])) AS ended (partition, ended)
      LEFT JOIN system.consumer_offset AS counted
        ON counted.group_id = :group AND counted.topic = :topic AND counted.partition = ended.partition
     WHERE COALESCE(counted.next_offset, 0) >= ended.ended
       AND NOT EXISTS (SELECT FROM system.parked_record AS parked WHERE parked.partition = ended.partition)
     ORDER BY 1
    ON CONFLICT (partition) DO UPDATE SET received_until = GREATEST(progress.received_until, excluded.received_until)
    """
)


async def advance_watermark(engine: AsyncEngine, kafka: KafkaSettings, *, group: str, topic: str) -> None:
    """Moves idle partitions on, every second, until cancelled. Several processes may do it; the greatest time stays."""
    ends = TopicEnds(kafka, topic)
    try:
        while True:
            try:
                now = datetime.now(UTC)
                offsets = await ends.end_offsets()
                async with engine.begin() as connection:
                    await connection.execute(_ADD, {"partitions": sorted(offsets)})
                    await connection.execute(
                        _ADVANCE,
                        {
                            "now": now,
                            "partitions": sorted(offsets),
                            "ends": [offsets[partition] for partition in sorted(offsets)],
                            "group": kafka.group(group),
                            "topic": kafka.topic(topic),
                        },
                    )
            except (Unavailable, SQLAlchemyError, OSError) as error:
                log.warning("usage_watermark_stands", error=repr(error))
            await asyncio.sleep(_PAUSE_SECONDS)
    finally:
        await ends.close()
