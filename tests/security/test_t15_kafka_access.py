"""T15: nobody writes events in another service's name. A broker with users, as `make up` runs it."""

import asyncio
import secrets
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import (
    GroupAuthorizationFailedError,
    KafkaError,
    TopicAuthorizationFailedError,
    TransactionalIdAuthorizationFailed,
)
from aiokafka.protocol.admin import CreateAclsRequest

from tenantry.events import Acl, KafkaSettings, acls_of, grant_rights, load_principals, load_topics
from tenantry.events._access import Pattern, ResourceKind, Right
from tenantry_dev.home import Home, Secrets
from tenantry_dev.run.kafka import login, prepare_kafka
from tenantry_dev.run.settings import SERVICES
from tenantry_dev.stack import EmbeddedKafka
from tenantry_dev.stack.kafka import can_log_in

TOPICS = {topic.name for topic in load_topics()}
WRITES = {
    service: {acl.name for acl in acls_of(service) if acl.kind is ResourceKind.TOPIC and acl.right is Right.WRITE}
    for service in SERVICES
}
READS = {
    service: {acl.name for acl in acls_of(service) if acl.kind is ResourceKind.TOPIC and acl.right is Right.READ}
    for service in SERVICES
}


class Cluster:
    """The broker, and how each user connects."""

    def __init__(self, broker: EmbeddedKafka, kept: Secrets) -> None:
        self.broker = broker
        self.administrator = broker.administrator
        self._kept = kept

    def settings(self, user: str, password: str | None = None) -> KafkaSettings:
        known = login(self._kept, user)
        return KafkaSettings(
            kafka_bootstrap=self.broker.bootstrap,
            kafka_security_protocol=known["security_protocol"],
            kafka_sasl_mechanism=known["sasl_mechanism"],
            kafka_sasl_username=user,
            kafka_sasl_password=password or known["password"],
        )

    @asynccontextmanager
    async def producer(self, user: str, **options: object) -> AsyncIterator[AIOKafkaProducer]:
        producer = AIOKafkaProducer(**self.settings(user).client_options(), **({"acks": "all"} | options))
        try:
            await producer.start()
            yield producer
        finally:
            await producer.stop()


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    directory: Path = tmp_path_factory.mktemp("secured")
    home = Home(directory / "home")
    home.create()
    kept = Secrets(home)
    with EmbeddedKafka(directory, admin_password=kept["kafka_admin"], superusers=["operator"]) as broker:
        asyncio.run(prepare_kafka(broker.administrator, kept, SERVICES))
        yield Cluster(broker, kept)


async def write(cluster: Cluster, user: str, topic: str) -> None:
    async with cluster.producer(user) as producer:
        await producer.send_and_wait(topic, b"value", key=b"key")


@pytest.mark.parametrize("service", SERVICES)
async def test_t15_a_service_writes_its_own_topics_and_no_others(cluster, service):
    async with cluster.producer(service) as producer:
        for topic in sorted(WRITES[service]):
            await producer.send_and_wait(topic, b"value", key=b"key")
    for topic in sorted(TOPICS - WRITES[service]):
        with pytest.raises(TopicAuthorizationFailedError):
            await write(cluster, service, topic)


def test_only_the_tenant_service_says_who_the_tenants_are():
    """What everybody else decides by: one writer each. The rights that the other tests try are those of the file."""
    for topic in ("tenant.state.v1", "tenant.config.v1", "tenant.credentials.v1", "platform.state.v1"):
        assert [service for service in SERVICES if topic in WRITES[service]] == ["tenant"]
    assert [service for service in SERVICES if "usage.rollups.v1" in WRITES[service]] == ["usage"]
    assert [service for service in SERVICES if "billing.events.v1" in WRITES[service]] == ["billing"]
    assert set(load_principals()) == set(SERVICES)


@pytest.mark.parametrize("service", SERVICES)
async def test_t15_a_service_reads_what_it_is_for_and_nothing_else(cluster, service):
    for topic in sorted(TOPICS):
        # A topic that the service may not even look up is refused at the start, one that it only writes when it reads.
        consumer = AIOKafkaConsumer(topic, **cluster.settings(service).client_options(), group_id=None)
        refused = False
        try:
            await consumer.start()
            await consumer.getmany(timeout_ms=200)
        except TopicAuthorizationFailedError:
            refused = True
        finally:
            await consumer.stop()
        assert refused is (topic not in READS[service]), topic


async def test_t15_no_service_takes_the_place_of_another(cluster):
    """A group's offsets decide what is counted; a transactional id fences the relay that holds it."""
    consumer = AIOKafkaConsumer(
        "billing.state.v1", **cluster.settings("app").client_options(), group_id="usage-meter", enable_auto_commit=False
    )
    try:
        with pytest.raises(GroupAuthorizationFailedError):
            await consumer.start()
    finally:
        await consumer.stop()
    with pytest.raises(TransactionalIdAuthorizationFailed):
        async with cluster.producer("app", transactional_id="tenant-outbox-0"):
            pass
    async with cluster.producer("app", transactional_id="app-outbox-0"):
        pass


@pytest.mark.parametrize("protocol", ["PLAINTEXT", "SASL_PLAINTEXT"])
async def test_t15_nobody_gets_in_without_a_password_of_ours(cluster, protocol):
    known = cluster.settings("tenant", password=secrets.token_urlsafe())
    assert not await can_log_in(known.model_copy(update={"kafka_security_protocol": protocol}), timeout_ms=1000)
    assert not await can_log_in(cluster.settings("nobody"), timeout_ms=1000)
    plain = cluster.settings("tenant").model_copy(update={"kafka_sasl_mechanism": "PLAIN"})
    assert not await can_log_in(plain, timeout_ms=1000)
    assert await can_log_in(cluster.settings("tenant"))


async def test_a_service_cannot_grant_itself_anything(cluster):
    with pytest.raises(KafkaError):
        await grant_rights(cluster.settings("usage"), ["usage"])


async def test_rights_that_are_not_in_the_file_are_taken_away(cluster):
    extra = Acl("usage", ResourceKind.TOPIC, "tenant.state.v1", Pattern.LITERAL, Right.WRITE)
    admin = AIOKafkaAdminClient(**cluster.administrator.client_options())
    await admin.start()
    try:
        await admin._send_to_controller(
            CreateAclsRequest(extra.kind, extra.name, extra.pattern, "User:usage", "*", extra.right, 3)
        )
    finally:
        await admin.close()

    added: list[Acl] = []
    removed: list[Acl] = []
    async with asyncio.timeout(30):
        while not removed:  # the broker takes a new right in after it has answered
            added, removed = await grant_rights(cluster.administrator, ["usage"])
    assert (added, removed) == ([], [extra])


async def test_the_operator_reads_and_writes_everything(cluster):
    await write(cluster, "operator", "tenant.events.v1")
