"""The state topics are built again from the database, while the service goes on."""

import asyncio
import contextlib
import json
import os
import secrets
import sys
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import pytest
from aiokafka import AIOKafkaProducer
from typer.testing import CliRunner

from tenant_service.commands import app as commands
from tenant_service.identity.api_keys import withdraw_expired_keys
from tenant_service.republishing.comparison import Difference
from tenant_service.republishing.service import compare_topics, republish
from tenant_service.revocations.service import forget_expired_revocations
from tenantry.config import Layer
from tenantry.events import Event, KafkaDirectory, KafkaSettings, OutboxRelay, create_topics, encode
from tenantry.identity import holder_of
from tenantry.testing import eventually

TENANTS = "tenant.state.v1"


@pytest.fixture
async def kafka(kafka_bootstrap, kafka_prefix):
    """Topics that hold nothing: what is left after somebody has deleted them."""
    kafka = KafkaSettings(kafka_bootstrap=kafka_bootstrap, topic_prefix=f"{kafka_prefix}{secrets.token_hex(2)}.")
    await create_topics(kafka)
    return kafka


@pytest.fixture
async def told(api, database):
    """A tenant with a key, configuration and a flag; the outbox is empty, as after a relay."""
    tenant = await api.create()
    await api.activate(tenant["id"])
    namespace = f"mail-{secrets.token_hex(3)}"
    for path, body in (
        (f"/v1/config-schemas/{namespace}", {"schema": {"type": "object"}}),
        (f"/v1/config/platform/{namespace}", {"a": 1}),
        (f"/v1/tenants/{tenant['id']}/config/{namespace}", {"a": 2}),
    ):
        answer = await api.http.put(path, json=body)
        assert answer.status_code in {200, 201}, answer.text
    made = await api.http.post(f"/v1/tenants/{tenant['id']}/api-keys", json={"name": "k", "scopes": ["tenant:read"]})
    assert made.status_code == 201, made.text
    await forget_outbox(database)
    return {"tenant_id": UUID(tenant["id"]), "key": made.json(), "namespace": namespace}


async def forget_outbox(database):
    async with database.connect() as connection:
        await connection.execute("DELETE FROM system.outbox")


async def differences(api, kafka):
    async with asyncio.timeout(60):
        return await compare_topics(api.runtime.transactions, kafka, now=api.runtime.clock.now())


async def rebuild(api, kafka, database):
    findings = await differences(api, kafka)
    published = await republish(api.runtime.transactions, findings, now=api.runtime.clock.now())
    await relay(database, kafka)
    return findings, published


async def relay(database, kafka):
    """Publishes what the outbox has."""
    async with database.databases() as databases, database.connect() as connection:
        running = asyncio.create_task(OutboxRelay("tenant", databases.system, kafka).run())

        async def is_empty():
            return await connection.fetchval("SELECT count(*) FROM system.outbox") == 0

        try:
            await eventually(is_empty, 30)
        finally:
            running.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await running


@asynccontextmanager
async def follower(kafka):
    """What a service knows that starts now."""
    known = KafkaDirectory(kafka)
    try:
        async with asyncio.timeout(30):
            await known.start()
        yield known
    finally:
        await known.stop()


async def write(kafka, tenant, *, version, data):
    event = Event(
        id=uuid4(),
        type=TENANTS,
        source="test",
        key=str(tenant),
        tenant_id=tenant,
        data=data,
        version=version,
        time=datetime.now(UTC),
    )
    key, value, headers = encode(event)
    async with AIOKafkaProducer(**kafka.client_options(), acks="all") as producer:
        await producer.send_and_wait(kafka.topic(TENANTS), key=key, value=value, headers=headers)


async def test_everything_is_there_again(api, kafka, database, told):
    findings, published = await rebuild(api, kafka, database)
    assert {finding.difference for finding in findings} == {Difference.MISSING}
    assert published == len(findings) >= 6
    async with follower(kafka) as known:
        local = api.runtime.state
        tenant = known.directory.get(told["tenant_id"])
        assert tenant == local.directory.get(told["tenant_id"]) is not None
        assert known.directory.tier(tenant.tier) == local.directory.tier(tenant.tier)
        assert len(known.directory) == len(local.directory)
        assert len(known.credentials) == len(local.credentials) > 0
        assert len(known.keys) == len(local.keys) > 0
        assert known.config.places() == local.configuration.config.places()
        assert (Layer.TENANT, str(told["tenant_id"]), told["namespace"]) in known.config.places()
    assert await differences(api, kafka) == []


async def test_an_old_version_that_came_last_is_put_right(api, kafka, database, told):
    await rebuild(api, kafka, database)
    current = api.runtime.state.directory.get(told["tenant_id"])
    await write(kafka, current.id, version=current.version - 1, data={"stale": True})
    (finding,), published = await rebuild(api, kafka, database)
    assert (finding.key, finding.difference, published) == (str(current.id), Difference.STALE, 1)
    assert finding.topic_version < finding.table_version
    async with follower(kafka) as known:
        assert known.directory.get(current.id) == current
    assert await differences(api, kafka) == []


async def test_what_no_table_has_gets_a_tombstone(api, kafka, database, told):
    await rebuild(api, kafka, database)
    current, stranger = api.runtime.state.directory.get(told["tenant_id"]), uuid4()
    await write(kafka, stranger, version=7, data=current)
    (finding,), published = await rebuild(api, kafka, database)
    assert (finding.key, finding.difference, published) == (str(stranger), Difference.LEFT_OVER, 1)
    async with follower(kafka) as known:
        assert known.directory.get(stranger) is None
        assert known.directory.get(current.id) == current
    assert await differences(api, kafka) == []


async def test_an_expired_key_is_no_difference_and_is_taken_off_the_topic(api, kafka, database, told):
    path = f"/v1/tenants/{told['tenant_id']}/api-keys"
    now = api.runtime.clock.now()
    ends = (now + timedelta(hours=1)).isoformat()
    expiring = (await api.http.post(path, json={"name": "e", "scopes": ["tenant:read"], "expires_at": ends})).json()
    await api.http.post(f"{path}/{told['key']['id']}/rotate", json={"overlap_seconds": 60})
    await rebuild(api, kafka, database)
    later, transactions = now + timedelta(hours=2), api.runtime.transactions
    assert await compare_topics(transactions, kafka, now=later) == []
    async with transactions.begin() as session:
        assert await withdraw_expired_keys(session, now=later, limit=500) >= 2
    async with transactions.begin() as session:
        assert await withdraw_expired_keys(session, now=later, limit=500) == 0
    async with database.connect() as connection:
        gone = await connection.fetch(
            "SELECT key FROM system.outbox WHERE topic = 'tenant.credentials.v1' AND payload IS NULL"
        )
    assert {expiring["id"], told["key"]["id"]} <= {row["key"] for row in gone}
    await relay(database, kafka)
    assert await compare_topics(transactions, kafka, now=later) == []


async def test_a_topic_ahead_of_the_database_is_said_and_left(api, kafka, database, told):
    await rebuild(api, kafka, database)
    current = api.runtime.state.directory.get(told["tenant_id"])
    await write(kafka, current.id, version=current.version + 3, data=current)
    (finding,), published = await rebuild(api, kafka, database)
    assert (finding.difference, published) == (Difference.AHEAD, 0)
    assert (finding.table_version, finding.topic_version) == (current.version, current.version + 3)


async def test_a_change_that_is_under_way_is_waited_for(api, kafka, database, told):
    """Published before it, the old version would be the last on the topic, and compaction would keep it."""
    findings = [each for each in await differences(api, kafka) if each.key == str(told["tenant_id"])]
    async with database.connect() as writer, database.connect() as watcher:
        changing = writer.transaction()
        await changing.start()
        version = await writer.fetchval(
            "UPDATE system.tenant SET version = version + 1, name = 'New' WHERE id = $1 RETURNING version",
            told["tenant_id"],
        )
        publishing = asyncio.create_task(republish(api.runtime.transactions, findings, now=api.runtime.clock.now()))

        async def waits():
            return await watcher.fetchval(
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
            )

        await eventually(waits)
        await changing.commit()
        assert await publishing == 1
        rows = await watcher.fetch(
            "SELECT version FROM system.outbox WHERE topic = $1 AND key = $2", TENANTS, str(told["tenant_id"])
        )
    assert [row["version"] for row in rows] == [version]


async def test_the_command_says_what_differs_and_puts_it_right(api, kafka, database, told):
    async def run(*options):
        process = await asyncio.create_subprocess_exec(
            *(
                sys.executable,
                "-c",
                "from tenantry.cli import main; main()",
                "tenants",
                "republish",
                "--json",
                *options,
            ),
            env={
                **os.environ,
                **database.environment(),
                "TENANTRY_KAFKA_BOOTSTRAP": kafka.kafka_bootstrap,
                "TENANTRY_TOPIC_PREFIX": kafka.topic_prefix,
            },
            stdout=asyncio.subprocess.PIPE,
        )
        output, _ = await process.communicate()
        return process.returncode, json.loads(output[output.index(b"{\n") :])

    code, said = await run("--check")
    missing = sum(each["keys"] for each in said["differences"])
    assert (code, said["published"], said["ahead"]) == (1, 0, [])
    assert missing >= 6
    code, said = await run()
    assert (code, said["published"]) == (0, missing)
    await relay(database, kafka)
    assert await run("--check") == (0, {"published": 0, "differences": [], "ahead": []})


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"TENANT_DATABASE_URL": ""}, "TENANT_DATABASE_URL"),
        (
            {"TENANTRY_KAFKA_SECURITY_PROTOCOL": "SASL_PLAINTEXT", "TENANTRY_KAFKA_SASL_USERNAME": "tenant"},
            "TENANTRY_KAFKA_SASL_PASSWORD is not set",
        ),
        ({"TENANTRY_KAFKA_BOOTSTRAP": "127.0.0.1:1"}, "the topics at 127.0.0.1:1 were not read in 1 seconds"),
    ],
)
async def test_the_command_ends_and_says_what_it_needs(database, kafka_bootstrap, changed, reason):
    """Where it cannot be right it does not wait for ever."""
    environment = {**database.environment(), "TENANTRY_KAFKA_BOOTSTRAP": kafka_bootstrap, **changed}
    arguments = ["tenants", "republish", "--check", "--timeout", "1"]
    ended = await asyncio.to_thread(lambda: CliRunner().invoke(commands, arguments, env=environment))
    assert ended.exit_code == 1
    [error] = [line for line in ended.stderr.splitlines() if line.startswith("error: ")]
    assert reason in error
    assert "next: " in ended.stderr


async def test_revocations_are_built_again_and_forgotten_when_their_time_is_over(api, told, kafka, database):
    path = f"/v1/tenants/{told['tenant_id']}/revocations"
    wanted = {"issuer": "https://idp.test", "subject": secrets.token_hex(4)}
    made = (await api.http.post(path, json=wanted)).json()
    await forget_outbox(database)
    await rebuild(api, kafka, database)
    async with follower(kafka) as known:
        assert len(known.credentials.revocations) >= 1
        holder = holder_of(wanted["issuer"], wanted["subject"])
        assert known.credentials.revocations.refuses(holder, told["tenant_id"], datetime(2026, 1, 1, tzinfo=UTC))
    assert await differences(api, kafka) == []
    async with api.runtime.transactions.begin() as session:
        over = datetime.fromisoformat(made["expires_at"])
        assert await forget_expired_revocations(session, now=over - timedelta(seconds=1), limit=500) == 0
        assert await forget_expired_revocations(session, now=over, limit=500) >= 1
    assert (await api.http.get(path)).json()["items"] == []
    await relay(database, kafka)
    async with follower(kafka) as known:
        assert not known.credentials.revocations.refuses(holder, told["tenant_id"], datetime(2026, 1, 1, tzinfo=UTC))
