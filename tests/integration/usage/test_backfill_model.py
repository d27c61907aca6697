"""Whatever was stored before a meter, beside its backfill and after it: it says what one says that was always there."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from itertools import count
from typing import Any

import pytest
from archives import ArchiveWorld
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from local_state import GivenState

from tenantry.events import KafkaSettings
from tenantry.testing import TenantFactory
from usage_service.domain.meters import Aggregation, MeterDefinition
from usage_service.metering.days import OwnedDays
from usage_service.metering.worker import GROUP, TOPIC, MeterWorker
from usage_service.meters.service import put_meter

from .backfills import METERS, START, backfiller_of, finish, rows
from .batches import Member

_NUMBERS = count()

EVENTS = st.lists(
    st.tuples(
        st.integers(0, 1),
        st.integers(0, 30),
        st.sampled_from([0, 59, 60, 61, 1_439, 1_440, 1_500]),
        st.sampled_from([-3, 0, 1, 7, "2.5", "none"]),
        st.sampled_from("ab"),
    ),
    min_size=1,
    max_size=10,
)
BESIDE = st.lists(st.one_of(EVENTS, st.just("turn"), st.just("farther")), max_size=8)


class World:
    """As much of `Usage` as batches and backfills need."""

    def __init__(self, database: Any, databases: Any) -> None:
        self.database, self.databases = database, databases
        self.kafka = KafkaSettings(kafka_bootstrap="nowhere:1", topic_prefix="model.")
        self.directory = GivenState().directory
        self.days = OwnedDays(database.urls.migrator)

    def worker(self) -> MeterWorker:
        topic = self.kafka.topic(TOPIC)
        return MeterWorker(directory=self.directory, days=self.days, group=self.kafka.group(GROUP), topic=topic)

    async def fetch(self, statement: str, *values: Any) -> list[Any]:
        async with self.database.connect() as connection:
            found: list[Any] = await connection.fetch(statement, *values)
            return found


@pytest.fixture
def runner():
    with asyncio.Runner() as found:
        yield found


@pytest.fixture
def world(service_database, runner):
    database = service_database("usage")
    opened = database.databases(follow_placement=False)
    databases = runner.run(opened.__aenter__())
    yield World(database, databases)
    runner.run(opened.__aexit__(None, None, None))


@settings(
    max_examples=20,
    deadline=None,
    phases=(Phase.explicit, Phase.reuse, Phase.generate),
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
@given(
    aggregation=st.sampled_from(list(METERS)),
    before=st.lists(EVENTS, max_size=3),
    hours=st.sampled_from([-1, 1, 24, 30]),
    beside=BESIDE,
    after=st.lists(EVENTS, max_size=1),
    chunk=st.sampled_from([1, 4, 1_000]),
)
def test_a_backfill_and_what_is_counted_live_are_all_of_it(
    world, runner, tmp_path, aggregation, before, hours, beside, after, chunk
):
    archive = ArchiveWorld(world.database, world.databases, tmp_path)
    runner.run(_example(world, archive, aggregation, before, hours, beside, after, chunk))


async def _example(world, archive, aggregation, before, hours, beside, after, chunk) -> None:
    number = next(_NUMBERS)
    kind, always, late = f"type-{number}", f"always-{number}", f"late-{number}"
    tenants = [TenantFactory()() for _ in range(2)]
    for tenant in tenants:
        world.directory.upsert(tenant)
    given = METERS[aggregation]
    definition = MeterDefinition(**{**given, "event_type": kind, "aggregation": Aggregation(aggregation)})
    member = await Member.join(world, number)

    async def put(slug: str, since: int | None) -> None:
        moment = None if since is None else START + timedelta(hours=since)
        async with world.databases.system_session() as session:
            await put_meter(session, slug, definition, expected_version=None, backfill_from=moment)

    async def send(events: list[tuple[Any, ...]]) -> None:
        await member.count(
            *[
                {
                    "specversion": "1.0",
                    "id": f"e-{name}",
                    "source": "model",
                    "type": kind,
                    "subject": str(tenants[which].id),
                    "time": (START + timedelta(minutes=minute)).isoformat(),
                    "data": {"v": value, "user": f"u-{name % 3}", "disk": disk},
                }
                for which, name, minute, value, disk in events
            ]
        )

    keeper = backfiller_of(world, archive, chunk_events=chunk)
    await put(always, None)
    for events in before:
        await send(events)
    await put(late, hours)
    for step in beside:
        if step == "turn":
            await keeper.turn()
        elif step == "farther":
            await put(late, -1)
        else:
            await send(step)
    await put(late, -1)
    await finish(keeper)
    for events in after:
        await send(events)
    assert await rows(world, late) == await rows(world, always)
    [[first]] = await world.fetch("SELECT backfill_from FROM system.meter WHERE slug = $1", late)
    assert first == START - timedelta(hours=1)
