"""The consumer sweep finds nothing in the product's consumer, and each wrong way to know whose a message is."""

import json
from datetime import UTC, datetime
from uuid import UUID

import pytest
from boards_product import TOPIC, UPSERT, consume_tallies, tally_of
from sqlalchemy import text

from tenantry.events import Event
from tenantry.testing import Message, SweepFailed, delivery_to, sweep_consumer

ADD = text(
    """
    INSERT INTO pool.tally (tenant_id, name, version, points, note) VALUES (:tenant_id, :name, :version, :points, :note)
    ON CONFLICT (tenant_id, name) DO UPDATE SET points = tally.points + excluded.points
    """
)


def message_of(tenant, number):
    return Message.of(
        Event(
            id=UUID(int=number),
            type="tally.changed.v1",
            source="/scores",
            key=str(tenant.id),
            tenant_id=tenant.id,
            time=datetime(2026, 1, 1, tzinfo=UTC),
            data={"tenant_id": str(tenant.id), "name": "same", "points": 10 * number},
            version=number,
        )
    )


async def swept(world, consume):
    async def effect_of(tenant):
        statement = text("SELECT name, version, points FROM tally ORDER BY name")
        async with world.databases.tenant_session(tenant, read_only=True) as session:
            return [tuple(row) for row in await session.execute(statement)]

    deliver = delivery_to(consume, world.databases.system, TOPIC)
    return await sweep_consumer(deliver, message_of, effect_of, world.a, world.b)


async def test_nothing_is_found_in_the_product(world):
    report = await swept(world, consume_tallies(world.tenancy))
    assert {"repeated", "out of order", "unknown tenant", "no tenant"} <= report.tried.keys()
    assert len(report.tried) > 15


def headers_of(record):
    return {name: value.decode() for name, value in record.headers}


def said_by(place):
    """A consumer that believes one place of the message alone."""

    async def consume(connection, records):
        for record in records:
            headers, data = headers_of(record), json.loads(record.value)
            said = {"key": record.key, "header": headers.get("ce_tenantid"), "value": data.get("tenant_id")}[place]
            tenant_id = UUID(said.decode() if place == "key" else said)
            await connection.execute(UPSERT, tally_of(tenant_id, int(headers["ce_sequence"]), data))

    return consume


@pytest.mark.parametrize(
    ("place", "position"),
    [
        ("value", "value.tenant_id of another tenant"),
        ("key", "key of another tenant"),
        ("header", "headers.ce_tenantid of another tenant"),
    ],
)
async def test_a_consumer_that_believes_one_place_is_found(world, place, position):
    report = await failed(world, said_by(place))
    assert any(leak.position == position and "has an effect on B" in leak.seen for leak in report.leaks), report


async def test_a_consumer_that_remembers_the_last_tenant_is_found(world):
    last: dict[str, str] = {}

    async def consume(connection, records):
        for record in records:
            headers, data = headers_of(record), json.loads(record.value)
            last["tenant"] = headers.get("ce_tenantid") or last["tenant"]
            await connection.execute(UPSERT, tally_of(UUID(last["tenant"]), int(headers["ce_sequence"]), data))

    report = await failed(world, consume)
    assert any(leak.position == "no tenant" for leak in report.leaks), report


async def test_a_consumer_that_counts_twice_is_found(world):
    report = await failed(world, consume_tallies(world.tenancy, ADD))
    assert any(leak.position == "repeated" for leak in report.leaks), report


async def test_a_consumer_that_lets_the_late_win_is_found(world):
    late = text(UPSERT.text.partition("WHERE tally.version")[0])
    report = await failed(world, consume_tallies(world.tenancy, late))
    assert any(leak.position == "out of order" for leak in report.leaks), report


async def test_a_consumer_that_serves_tenants_that_do_not_exist_is_found(world):
    report = await failed(world, said_by("value"))
    assert any(leak.position == "unknown tenant" and "on nobody" in leak.seen for leak in report.leaks), report


async def test_a_consumer_that_does_nothing_proves_nothing(world):
    async def consume(connection, records):
        pass

    report = await failed(world, consume)
    assert any("a valid message of A has none" in each.seen for each in report.blind), report


async def failed(world, consume):
    with pytest.raises(SweepFailed) as raised:
        await swept(world, consume)
    return raised.value.report
