"""The directory that every service has from the state topics."""

import asyncio

import msgspec
import pytest

from tenantry import TenantStatus, uuid7
from tenantry.events import KafkaDirectory, OutboxRelay, append_outbox, create_topics
from tenantry.identity import Credential
from tenantry.testing import eventually

STATE_TOPICS = ["tenant.state.v1", "tenant.config.v1", "platform.state.v1", "tenant.credentials.v1"]


def api_key(tenant, **changes) -> Credential:
    document = {"id": str(uuid7()), "kind": "api_key", "hash": "ab" * 32, "tenant_id": tenant.id, "subject": "ci"}
    return msgspec.convert(document | changes, Credential)


@pytest.fixture
async def directory(kafka, broker, engine, running):
    await create_topics(kafka, only=STATE_TOPICS)
    running.start(OutboxRelay("tenant", engine, kafka).run())
    directory = KafkaDirectory(kafka)
    try:
        yield directory
    finally:
        await directory.stop()


@pytest.fixture
def publish(engine):
    async def publish(topic, key, data, version, tenant_id=None) -> None:
        async with engine.begin() as connection:
            await append_outbox(
                connection, topic=topic, key=key, type=topic, data=data, version=version, tenant_id=tenant_id
            )

    return publish


async def test_topics_are_created_once_with_receipt_time_and_compaction(kafka, broker):
    assert len(await create_topics(kafka, only=STATE_TOPICS)) == 4
    assert await create_topics(kafka, only=STATE_TOPICS) == []
    # What the controller has made, the broker learns a moment later.
    config = await eventually(lambda: broker.config("tenant.state.v1"), within=10)
    assert config["message.timestamp.type"] == "LogAppendTime"
    assert config["cleanup.policy"] == "compact"
    assert config["min.insync.replicas"] == "1"


async def test_tenants_keys_and_credentials_follow_their_topics(directory, publish, tenant_a):
    credential = api_key(tenant_a)
    await publish("tenant.state.v1", str(tenant_a.id), tenant_a, tenant_a.version, tenant_a.id)
    async with asyncio.timeout(20):
        await directory.start()
    tenants = directory.directory
    await directory.wait_for(lambda: tenants.get(tenant_a.id) == tenant_a, timeout=10)
    await publish("tenant.credentials.v1", str(credential.id), credential, 1, tenant_a.id)
    await directory.wait_for(lambda: len(directory.credentials) == 1, timeout=10)
    await publish("tenant.credentials.v1", str(credential.id), None, 2, tenant_a.id)
    await directory.wait_for(lambda: len(directory.credentials) == 0, timeout=10)

    suspended = msgspec.structs.replace(tenant_a, status=TenantStatus.SUSPENDED, version=tenant_a.version + 1)
    await publish("tenant.state.v1", str(tenant_a.id), suspended, suspended.version, tenant_a.id)
    await directory.wait_for(lambda: tenants.get(tenant_a.id).status is TenantStatus.SUSPENDED, timeout=10)
    await publish("tenant.state.v1", str(tenant_a.id), None, suspended.version + 1, tenant_a.id)
    await directory.wait_for(lambda: tenants.is_purged(tenant_a.id), timeout=10)
    assert tenants.get(tenant_a.id) is None
    assert directory.ready


async def test_what_a_relay_publishes_again_brings_nothing_back(directory, publish, tenant_a):
    async with asyncio.timeout(20):
        await directory.start()
    credential = api_key(tenant_a)
    revoked = api_key(tenant_a, id=str(credential.id), status="revoked")
    other = api_key(tenant_a, hash="cd" * 32)
    topic, held = "tenant.credentials.v1", directory.credentials
    await publish(topic, str(credential.id), credential, 1, tenant_a.id)
    await directory.wait_for(lambda: len(held) == 1, timeout=10)
    await publish(topic, str(credential.id), revoked, 2, tenant_a.id)
    await directory.wait_for(lambda: len(held) == 0, timeout=10)
    await publish(topic, str(credential.id), credential, 1, tenant_a.id)
    await publish(topic, str(other.id), other, 1, tenant_a.id)
    await directory.wait_for(lambda: str(other.id) in held._principals, timeout=10)
    assert len(held) == 1


async def test_waiting_has_a_deadline(directory):
    with pytest.raises(TimeoutError):
        await directory.wait_for(lambda: False, timeout=0.05)
