"""Kafka as the services of a test see it: the declared topics under a prefix, state to publish and records to read."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import msgspec
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRecord
from issuer import Issuer

from tenantry import Tenant, Tier
from tenantry.events import KafkaSettings, create_topics


@dataclass(frozen=True)
class Broker:
    settings: KafkaSettings
    producer: AIOKafkaProducer

    async def publish(self, topic: str, key: str, value: object) -> None:
        """One record with a JSON value; a value of None is a tombstone."""
        await self.producer.send_and_wait(
            self.settings.topic(topic),
            key=key.encode(),
            value=None if value is None else msgspec.json.encode(value),
        )

    async def publish_platform(self, issuer: Issuer, *tiers: Tier) -> None:
        """What the tenant service says once: its public keys, and the tiers."""
        await self.publish("platform.state.v1", "jwks", issuer.jwks)
        for tier in tiers:
            await self.publish("platform.state.v1", f"tier/{tier.name}", tier)

    async def publish_tenants(self, *tenants: Tenant) -> None:
        for tenant in tenants:
            await self.publish("tenant.state.v1", str(tenant.id), tenant)

    async def read(self, topic: str) -> list[ConsumerRecord]:
        return await read_topic(self.settings, topic)


@asynccontextmanager
async def open_broker(bootstrap: str, prefix: str) -> AsyncIterator[Broker]:
    """The broker with all topics under the prefix."""
    settings = KafkaSettings(kafka_bootstrap=bootstrap, topic_prefix=prefix)
    await create_topics(settings)
    async with AIOKafkaProducer(**settings.client_options(), acks="all") as producer:
        yield Broker(settings, producer)


async def read_topic(kafka: KafkaSettings, topic: str) -> list[ConsumerRecord]:
    """All committed records of a topic, by partition and offset."""
    consumer = AIOKafkaConsumer(
        kafka.topic(topic),
        **kafka.client_options(),
        isolation_level="read_committed",
        enable_auto_commit=False,
        auto_offset_reset="earliest",
    )
    records: list[ConsumerRecord] = []
    async with consumer:
        ends = await consumer.end_offsets(consumer.assignment())
        while any([await consumer.position(place) < end for place, end in ends.items()]):
            for found in (await consumer.getmany(timeout_ms=200)).values():
                records += found
    return sorted(records, key=lambda record: (record.partition, record.offset))
