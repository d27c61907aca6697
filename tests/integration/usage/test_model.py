"""Any sequence of events, copies, changed meters, crashes and rebalances gives what a few dictionaries give.

The steps are those of a consumer: claim, read, handle, advance, commit. Kafka is left out, because what it does to a
worker is just this: records in order, some of them again, to one owner after another.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter, defaultdict
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from itertools import count
from uuid import UUID

import pytest
from aiokafka import ConsumerRecord, TopicPartition
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test
from local_state import GivenState

from tenantry.events import partition_key
from tenantry.events._offsets import Claims, Fenced, advance, claim
from tenantry.testing import TenantFactory
from usage_service.domain.meters import Aggregation, MeterDefinition
from usage_service.metering.days import OwnedDays
from usage_service.metering.worker import MeterWorker
from usage_service.meters.service import put_meter

MIDNIGHT = datetime(2026, 11, 20, tzinfo=UTC)
PARTITIONS = 2
FILTERS: tuple[dict[str, object], ...] = ({}, {"$.path": {"eq": "/a"}}, {"$.n": {"gte": 5}})
_NUMBERS = count()
_ROLLUPS = """
SELECT meter.version, tenant_id, window_start, groups, count, sum FROM pool.usage_rollup AS rollup
  JOIN system.meter AS meter ON meter.id = rollup.meter_id WHERE meter.slug = $1
"""


class Member:
    """A consumer member as far as it touches the database: what it remembers and what it believes to own."""

    def __init__(self, worker: MeterWorker, claims: Claims) -> None:
        self.worker = worker
        self.claims = claims


@pytest.fixture
def machine(service_database):
    """The class of the machines, on the module's database; each run has tenants, a meter and a group of its own."""
    database = service_database("usage")
    runner = asyncio.Runner()
    opened = database.databases(follow_placement=False)
    databases = runner.run(opened.__aenter__())
    days = OwnedDays(database.urls.migrator)

    class Counting(RuleBasedStateMachine):
        @initialize()
        def begin(self) -> None:
            number = next(_NUMBERS)
            factory = TenantFactory()
            self.directory = GivenState().directory
            # Two tenants of each partition.
            self.tenants = [factory() for _ in range(2 * PARTITIONS)]
            for tenant in self.tenants:
                self.directory.upsert(tenant)
            self.topic, self.group, self.type = f"events-{number}", f"group-{number}", f"type-{number}"
            self.slug = f"meter-{number}"
            self.log: list[list[ConsumerRecord]] = [[] for _ in range(PARTITIONS)]
            self.filter = FILTERS[0]
            self.version = 0
            self.stored: defaultdict[tuple, list[date]] = defaultdict(list)
            self.counts: Counter = Counter()
            self.sums: defaultdict[tuple, Decimal] = defaultdict(Decimal)
            self.former: list[Member] = []
            self.member = runner.run(self._join())
            self._put_meter(0)

        @rule(
            events=st.lists(
                st.tuples(
                    st.integers(0, 2 * PARTITIONS - 1),
                    st.integers(0, 6),
                    st.integers(-2, 2),
                    st.sampled_from([0, 59, 720, 1439]),
                    st.integers(0, 9),
                    st.sampled_from(["/a", "/b"]),
                ),
                min_size=1,
                max_size=8,
            )
        )
        def receive(self, events: list[tuple[int, int, int, int, int, str]]) -> None:
            """Events of few possible identities, so that most are copies or conflicts of others."""
            for which, name, day, minute, number, path in events:
                tenant = self.tenants[which]
                time = MIDNIGHT + timedelta(days=day, minutes=minute)
                value = {
                    "specversion": "1.0",
                    "id": f"e-{name}",
                    "source": "model",
                    "type": self.type,
                    "subject": str(tenant.id),
                    "time": time.isoformat(),
                    "data": {"n": number, "path": path},
                }
                log = self.log[which % PARTITIONS]
                key, body = partition_key(tenant.id), json.dumps(value).encode()
                place = (self.topic, which % PARTITIONS, len(log), 1_780_000_000_000, 1)
                log.append(ConsumerRecord(*place, key, body, None, len(key), len(body), ()))

        @rule(most=st.integers(1, 12), fate=st.sampled_from(["commit", "commit", "rollback", "answer lost"]))
        def work(self, most: int, fate: str) -> None:
            """A batch; it may fail before its commit, or succeed without the member's hearing of it."""
            batch = self._batch(self.member, most)
            if not batch:
                return
            runner.run(self._apply(self.member, batch, commit=fate != "rollback"))
            if fate == "rollback":
                return
            self._expect(batch)
            if fate == "answer lost":
                with pytest.raises(Fenced):
                    runner.run(self._apply(self.member, batch, commit=True))
                # Whoever is fenced gives its membership up; what it remembers stays with the process.
                self.member.claims = runner.run(self._claim())
            else:
                self._advance(self.member, batch)

        @rule()
        def rebalance(self) -> None:
            """Another process takes over, and the former owner knows nothing of it."""
            self.former.append(self.member)
            self.member = runner.run(self._join())

        @rule(most=st.integers(1, 6))
        def work_as_former_owner(self, most: int) -> None:
            if not self.former:
                return
            former = self.former[-1]
            batch = self._batch(former, most)
            if batch:
                with pytest.raises(Fenced):
                    runner.run(self._apply(former, batch, commit=True))

        @rule()
        def return_to_former_owner(self) -> None:
            """A process that has owned the partitions before gets them again, with all that it remembers."""
            if self.former:
                former = self.former.pop()
                former.claims = runner.run(self._claim())
                self.former.append(self.member)
                self.member = former

        @rule(which=st.integers(0, len(FILTERS) - 1))
        def change_meter(self, which: int) -> None:
            self._put_meter(which)

        @invariant()
        def figures_are_those_of_the_model(self) -> None:
            if not hasattr(self, "slug"):
                return
            rows = runner.run(self._rollups())
            keys = [
                (row["version"], row["tenant_id"], row["window_start"], json.loads(row["groups"])["path"])
                for row in rows
            ]
            assert dict(zip(keys, [row["count"] for row in rows], strict=True)) == self.counts
            assert dict(zip(keys, [row["sum"] for row in rows], strict=True)) == self.sums

        async def _join(self) -> Member:
            worker = MeterWorker(directory=self.directory, days=days, group=self.group, topic=self.topic)
            return Member(worker, await self._claim())

        async def _claim(self) -> Claims:
            earliest = {TopicPartition(self.topic, number): 0 for number in range(PARTITIONS)}
            async with databases.system.begin() as connection:
                return await claim(connection, self.group, earliest)

        def _batch(self, member: Member, most: int) -> list[ConsumerRecord]:
            return [
                record
                for partition, mine in member.claims.items()
                for record in self.log[partition.partition][mine.next_offset : mine.next_offset + most]
            ]

        async def _apply(self, member: Member, batch: list[ConsumerRecord], *, commit: bool) -> None:
            async with databases.system.connect() as connection, connection.begin() as transaction:
                await member.worker.handle(connection, batch)
                await advance(connection, self.group, member.claims, _ends(batch))
                await (transaction.commit() if commit else transaction.rollback())

        def _advance(self, member: Member, batch: list[ConsumerRecord]) -> None:
            for partition, end in _ends(batch).items():
                member.claims[partition].next_offset = end

        def _put_meter(self, which: int) -> None:
            definition = MeterDefinition(
                event_type=self.type,
                aggregation=Aggregation.SUM,
                value="$.n",
                group_by={"path": "$.path"},
                filter=FILTERS[which],
            )

            async def put() -> int:
                async with databases.system_session() as session:
                    return (await put_meter(session, self.slug, definition, expected_version=None)).version

            self.version, self.filter = runner.run(put()), FILTERS[which]

        def _expect(self, batch: list[ConsumerRecord]) -> None:
            """What the rules say of these records, one after the other."""
            for record in batch:
                event = json.loads(record.value)
                time, data = datetime.fromisoformat(event["time"]), event["data"]
                kept = self.stored[event["subject"], event["id"]]
                if any(abs((day - time.date()).days) <= 1 for day in kept):
                    continue
                kept.append(time.date())
                if (self.filter == FILTERS[1] and data["path"] != "/a") or (
                    self.filter == FILTERS[2] and data["n"] < 5
                ):
                    continue
                hour = time.replace(minute=0)
                window = (self.version, UUID(event["subject"]), hour, data["path"])
                self.counts[window] += 1
                self.sums[window] += data["n"]

        async def _rollups(self):
            async with database.connect() as connection:
                return await connection.fetch(_ROLLUPS, self.slug)

    yield Counting
    runner.run(opened.__aexit__(None, None, None))
    runner.close()


def test_the_worker_and_the_model_agree(machine):
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=40,
            stateful_step_count=50,
            deadline=None,
            # Shrinking runs an example a hundred times, against a database.
            phases=(Phase.explicit, Phase.reuse, Phase.generate),
            suppress_health_check=[HealthCheck.too_slow],
        ),
    )


def test_an_owner_that_returns_does_not_trust_what_it_remembers(machine):
    """What another has stored meanwhile is in no filter of the former owner."""
    steps = machine()
    steps.begin()
    steps.receive([(0, 0, 0, 0, 1, "/a")])
    steps.work(5, "commit")
    steps.rebalance()
    steps.receive([(0, 1, 0, 0, 1, "/a")])
    steps.work(5, "commit")
    steps.return_to_former_owner()
    steps.receive([(0, 1, 1, 0, 1, "/a")])
    steps.work(5, "commit")
    steps.figures_are_those_of_the_model()


def _ends(batch: list[ConsumerRecord]) -> dict[TopicPartition, int]:
    return {TopicPartition(record.topic, record.partition): record.offset + 1 for record in batch}
