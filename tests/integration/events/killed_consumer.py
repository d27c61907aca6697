"""A consumer in a process of its own, to be killed: stores each record's value in small batches."""

import asyncio
import sys

from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

from tenantry.events import KafkaSettings, TransactionalConsumer


async def store(connection, records) -> None:
    rows = [{"partition": record.partition, "at": record.offset, "value": record.value.decode()} for record in records]
    await connection.execute(text("INSERT INTO effect VALUES (:partition, :at, :value)"), rows)


async def main(bootstrap: str, prefix: str, url: str, topic: str) -> None:
    consumer = TransactionalConsumer(
        kafka=KafkaSettings(kafka_bootstrap=bootstrap, topic_prefix=prefix),
        engine=create_async_engine(url),
        group="killed",
        topics=[topic],
        handle=store,
        max_records=20,
        max_wait_ms=0,
        contiguous=True,
    )
    await consumer.run()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
