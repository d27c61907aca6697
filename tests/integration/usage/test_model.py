"""Any sequence of events, copies, corrections, changed meters, crashes and rebalances gives what the model gives.

The steps are those of a consumer: claim, read, handle, advance, commit. Kafka is left out, because what it does to a
worker is just this: records in order, some of them again, to one owner after another.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import count
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from aiokafka import ConsumerRecord, TopicPartition
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test
from local_state import GivenState

from tenantry import Tenant
from tenantry.events import partition_key
from tenantry.events._offsets import Claims, Fenced, advance, claim
from tenantry.testing import TenantFactory
from usage_service.domain.corrections import CORRECTION, correction_id
from usage_service.domain.meters import Aggregation, MeterDefinition
from usage_service.domain.windows import Granularity, windows
from usage_service.metering.days import OwnedDays
from usage_service.metering.worker import MeterWorker
from usage_service.meters.service import get_versions, put_meter
from usage_service.queries.figures import answer
from usage_service.queries.questions import Question

from .model import DIGITS, FIGURES, Model, Window

MIDNIGHT = datetime(2026, 11, 20, tzinfo=UTC)
PARTITIONS = 2
CORRECTED = MIDNIGHT + timedelta(hours=12)
RECEIVED = MIDNIGHT + timedelta(days=4)
FILTERS: tuple[dict[str, object], ...] = ({}, {"$.path": {"eq": "/a"}}, {"$.n": {"gte": 5}})
PASSES = (lambda _: True, lambda data: data["path"] == "/a", lambda data: data["n"] >= 5)
NOTHING = ("count", "sum", "minimum", "maximum", "latest", "integral", "stored")
SOURCES = ("model", "other")
_NUMBERS = count()
_ROLLUPS = """
SELECT rollup.*, meter.slug, meter.version AS meter_version,
       (SELECT count(*) FROM pool.usage_unique_value AS value
         WHERE (value.tenant_id, value.meter_id, value.window_start, value.group_hash)
             = (rollup.tenant_id, rollup.meter_id, rollup.window_start, rollup.group_hash)) AS stored
  FROM pool.usage_rollup AS rollup JOIN system.meter AS meter ON meter.id = rollup.meter_id
 WHERE meter.slug = ANY($1) AND rollup.tenant_id = ANY($2)
"""
_LETTERS = """
SELECT tenant_id::text AS tenant, source, event_id, kind, type FROM pool.dead_letter WHERE tenant_id = ANY($1)
 ORDER BY created_at, id
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
    looking = database.connect()
    looker = runner.run(looking.__aenter__())
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
            self.model = Model()
            self.former: list[Member] = []
            self.worked = False
            self.member = runner.run(self._join())
            for aggregation in FIGURES:
                self._put_meter(aggregation, 0)

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
                self._log(which, self._event(which, "e", name, day, minute, number, path))

        @rule(
            which=st.integers(0, 2 * PARTITIONS - 1),
            name=st.integers(0, 6),
            day=st.none() | st.integers(-2, 2),
            replacement=st.none() | st.tuples(st.integers(0, 9), st.integers(-1, 1), st.integers(0, 9)),
            of_replacement=st.booleans(),
        )
        def correct(
            self,
            which: int,
            name: int,
            day: int | None,
            replacement: tuple[int, int, int] | None,
            *,
            of_replacement: bool,
        ) -> None:
            """Of events that are there, that come later, that are corrected already; and of what replaced one."""
            cancels = _named("r" if of_replacement else "e", name)
            if day is not None:
                cancels["time"] = (MIDNIGHT + timedelta(days=day, minutes=720)).isoformat()
            data: dict[str, Any] = {"cancels": cancels}
            if replacement is not None:
                number, at, value = replacement
                data["replacement"] = self._event(which, "r", number, at, 30, value, "/a")
            subject = str(self.tenants[which].id)
            self._log(
                which,
                {
                    "specversion": "1.0",
                    "id": str(correction_id(subject, data)),
                    "source": "model",
                    "type": CORRECTION,
                    "subject": subject,
                    "time": CORRECTED.isoformat(),
                    "data": data,
                },
            )

        @rule(most=st.integers(1, 12), fate=st.sampled_from(["commit", "commit", "rollback", "answer lost"]))
        def work(self, most: int, fate: str) -> None:
            """A batch; it may fail before its commit, or succeed without the member's hearing of it."""
            batch = self._batch(self.member, most)
            if not batch:
                return
            self.worked = True
            runner.run(self._apply(self.member, batch, commit=fate != "rollback"))
            if fate == "rollback":
                return
            for record in batch:
                self.model.expect(record)
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
                self.worked = True
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
            self._put_meter("sum", which)

        @rule(
            which=st.integers(0, 2 * PARTITIONS - 1),
            first=st.integers(-2 * 1440, 3 * 1440),
            minutes=st.integers(1, 3 * 1440),
        )
        def ask(self, which: int, first: int, minutes: int) -> None:
            """Any range of minutes: whole hours from rollups, the edges from raw events."""
            start = MIDNIGHT + timedelta(minutes=first)
            span = (start, start + timedelta(minutes=minutes))
            tenant = self.tenants[which]
            told = {meter: runner.run(self._answer(meter, tenant, span)) for meter in FIGURES}
            assert told == {meter: self.model.total(meter, tenant.id, *span) for meter in FIGURES}

        @invariant()
        def agrees_with_the_model(self) -> None:
            """Only work changes what is stored."""
            if getattr(self, "worked", False):
                self.figures_are_those_of_the_model()
                self.corrections_are_those_of_the_model()
                self.worked = False

        def figures_are_those_of_the_model(self) -> None:
            expected = {window: held for meter in FIGURES for window, held in self.model.figures(meter).items()}
            found = {}
            tenants = [tenant.id for tenant in self.tenants]
            for row in runner.run(looker.fetch(_ROLLUPS, [self._slug(meter) for meter in FIGURES], tenants)):
                meter = row["slug"].removeprefix(f"{self.slug}-").replace("-", "_")
                path = json.loads(row["groups"]).get("path", "")
                window = Window(meter, row["meter_version"], row["tenant_id"], row["window_start"], path)
                if window in expected:
                    found[window] = {name: row[name] for name in expected[window]}
                else:
                    assert tuple(row[name] for name in NOTHING) == (0, None, None, None, None, None, 0), window
            assert found == expected

        def corrections_are_those_of_the_model(self) -> None:
            tenants = [tenant.id for tenant in self.tenants]
            [row] = runner.run(
                looker.fetch("SELECT count(day) AS days FROM pool.correction WHERE tenant_id = ANY($1)", tenants)
            )
            assert row["days"] == self.model.cancelled()
            letters = runner.run(looker.fetch(_LETTERS, tenants))
            assert [row["kind"] for row in letters if row["type"] == CORRECTION] == self.model.letters
            told = [row for row in letters if row["type"] != CORRECTION]
            assert {row["kind"] for row in told} <= {"conflict"}
            assert Counter((row["tenant"], row["source"], row["event_id"]) for row in told) == self.model.conflicts

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

        def _put_meter(self, aggregation: str, which: int) -> None:
            of_paths = aggregation == "sum"
            definition = MeterDefinition(
                event_type=self.type,
                aggregation=Aggregation(aggregation),
                value=None if aggregation == "count" else "$.n",
                group_by={"path": "$.path"} if of_paths else {},
                filter=FILTERS[which],
            )

            async def put() -> int:
                async with databases.system_session() as session:
                    meter = await put_meter(session, self._slug(aggregation), definition, expected_version=None)
                    return meter.version

            version = runner.run(put())
            if of_paths:
                self.model.version, self.model.passes = version, PASSES[which]

        def _event(
            self, which: int, kind: str, name: int, day: int, minute: int, number: int, path: str
        ) -> dict[str, Any]:
            return {
                "specversion": "1.0",
                **_named(kind, name),
                "type": self.type,
                "subject": str(self.tenants[which].id),
                "time": (MIDNIGHT + timedelta(days=day, minutes=minute)).isoformat(),
                "data": {"n": number, "path": path},
            }

        def _log(self, which: int, value: dict[str, Any]) -> None:
            log = self.log[which % PARTITIONS]
            key, body = partition_key(self.tenants[which].id), json.dumps(value).encode()
            received = int(RECEIVED.timestamp() * 1_000) + len(log)
            place = (self.topic, which % PARTITIONS, len(log), received, 1)
            log.append(ConsumerRecord(*place, key, body, None, len(key), len(body), ()))

        def _slug(self, aggregation: str) -> str:
            return f"{self.slug}-{aggregation.replace('_', '-')}"

        async def _answer(self, meter: str, tenant: Tenant, span: tuple[datetime, datetime]) -> Decimal | None:
            question = Question(windows(*span, Granularity.NONE, ZoneInfo("UTC")), Granularity.NONE)
            async with databases.tenant_session(tenant, read_only=True) as session:
                versions = await get_versions(session, self._slug(meter))
                [figure] = await answer(session, tenant.id, versions, question)
            return None if figure.value is None else round(Decimal(figure.value), DIGITS)

    yield Counting
    runner.run(looking.__aexit__(None, None, None))
    runner.run(opened.__aexit__(None, None, None))
    runner.close()


def test_the_worker_and_the_model_agree(machine):
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=20,
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


def test_an_owner_that_returns_knows_what_is_waited_for(machine):
    """Another one has kept a correction meanwhile, whose event comes now."""
    steps = machine()
    steps.begin()
    steps.receive([(0, 0, 0, 0, 1, "/a")])
    steps.work(5, "commit")
    steps.rebalance()
    steps.correct(0, 1, None, None, of_replacement=False)
    steps.work(5, "commit")
    steps.return_to_former_owner()
    steps.receive([(0, 1, 0, 0, 1, "/a")])
    steps.work(5, "commit")
    steps.figures_are_those_of_the_model()
    steps.corrections_are_those_of_the_model()


def test_a_copy_is_compared_with_what_is_stored_and_not_with_the_first_of_its_batch(machine):
    steps = machine()
    steps.begin()
    steps.receive([(0, 0, 0, 0, 1, "/a")])
    steps.work(5, "commit")
    steps.receive([(0, 0, 0, 0, 2, "/a"), (0, 0, 0, 0, 1, "/a"), (0, 0, 0, 0, 1, "/a")])
    steps.work(5, "commit")
    assert sum(steps.model.conflicts.values()) == 1
    steps.corrections_are_those_of_the_model()


def _named(kind: str, name: int) -> dict[str, str]:
    """Two sources have events of each id."""
    return {"source": SOURCES[name % len(SOURCES)], "id": f"{kind}-{name // len(SOURCES)}"}


def _ends(batch: list[ConsumerRecord]) -> dict[TopicPartition, int]:
    return {TopicPartition(record.topic, record.partition): record.offset + 1 for record in batch}
