"""All that the service says at the end, beside what the oracle says."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import asyncpg

from tenantry.testing import eventually

from .entitlements import ALERTS, BALANCES, compare_alerts, compare_not_counted, is_settled, not_counted
from .installation import ROLLUPS, Installation
from .oracle import Expected, Figure, Sample, Window, value_hours
from .workload import TOO_OLD, Identity, Workload

Versioned = dict[Window, tuple[int, Figure]]

_ROLLUPS = """
SELECT rollup.tenant_id::text AS tenant, meter.slug, rollup.*,
       (SELECT count(*) FROM pool.usage_unique_value AS value
         WHERE (value.tenant_id, value.meter_id, value.window_start, value.group_hash)
             = (rollup.tenant_id, rollup.meter_id, rollup.window_start, rollup.group_hash)) AS values
  FROM pool.usage_rollup AS rollup JOIN system.meter AS meter ON meter.id = rollup.meter_id
"""
_LETTERS = """
SELECT letter.tenant_id::text AS tenant, kind, meter.slug, source, event_id
  FROM pool.dead_letter AS letter LEFT JOIN system.meter AS meter ON meter.id = letter.meter_id
"""
_UNMATCHED = "SELECT tenant_id::text, type, count FROM pool.unmatched_type WHERE count > 0"
_TOLD = "SELECT tenant_id::text AS tenant, kind, reason, number IS NOT NULL AS told FROM pool.not_counted"


async def compare(installation: Installation, workload: Workload, expected: Expected) -> None:
    """Everything that the service says is what the oracle says."""
    async with asyncio.TaskGroup() as tasks:
        for comparison in (
            compare_events(installation, expected),
            compare_rollups(installation, expected),
            compare_letters(installation, workload, expected),
            compare_answers(installation, expected),
            compare_entitlements(installation, expected),
        ):
            tasks.create_task(comparison)
    await compare_told(installation, workload, expected)


async def compare_events(installation: Installation, expected: Expected) -> None:
    [kept] = await installation.fetch("SELECT count(*) AS count FROM pool.usage_event")
    assert kept["count"] == expected.stored
    [corrected] = await installation.fetch("SELECT count(day) AS count FROM pool.correction")
    assert corrected["count"] == expected.cancelled
    unmatched = await installation.fetch(_UNMATCHED)
    assert {(tenant, kind): count for tenant, kind, count in unmatched} == expected.unmatched


async def compare_rollups(installation: Installation, expected: Expected) -> None:
    """Each column of each rollup, and of the last record of its key; no older state comes after a newer one."""
    rows = await installation.fetch(_ROLLUPS)
    found: Versioned = {}
    for row in rows:
        assert row["values"] == (row["uniques"] or 0), "the values of a unique count are not as many as it says"
        window = _window(row["tenant"], row["slug"], row["window_start"], row["groups"])
        found[window] = row["version"], _figure_of_row(row)
    assert len(found) == len(rows)
    # What was counted and then cancelled leaves a row behind that says nothing.
    empty = {window for window, (_, figure) in found.items() if figure.count == 0}
    assert all(found[window][1] in {Figure(), Figure(uniques=0)} for window in empty)
    counted = {window: figure for window, (_, figure) in found.items() if window not in empty}
    assert counted == expected.windows, _first_differences(counted, expected.windows)
    published = await _published(installation)
    assert published == found, _first_differences(published, found)


async def compare_letters(installation: Installation, workload: Workload, expected: Expected) -> None:
    """Every letter that there is, as often as it is there."""
    letters = await installation.fetch(_LETTERS)
    invalid = Counter((each["tenant"], each["slug"]) for each in letters if each["kind"] == "invalid-value")
    assert invalid == expected.invalid
    others = Counter(
        (each["kind"], Identity(each["tenant"], each["source"], each["event_id"]))
        for each in letters
        if each["kind"] != "invalid-value"
    )
    conflicts = Counter({("conflict", identity): times for identity, times in expected.conflicts.items()})
    assert others == conflicts + Counter(("late", identity) for identity in workload.refused)
    assert all(identity.source == TOO_OLD for identity in workload.refused)


async def compare_answers(installation: Installation, expected: Expected) -> None:
    """What somebody is told who asks over HTTP for what a tenant has used, in all and by day."""
    until = datetime.now(UTC).replace(microsecond=0)
    since = until - timedelta(days=40)
    for tenant in installation.tenants:
        samples = {slug: expected.samples_of(tenant, slug) for slug in ("bandwidth", "paths", "last", "level")}
        figures = {
            "bandwidth": [sum((each.value for each in samples["bandwidth"]), Decimal(0))],
            "paths": [Decimal(len({each.value for each in samples["paths"]}))],
            "last": [each.value for each in samples["last"][-1:]],
        }
        for slug, figure in figures.items():
            told = await installation.ask(slug, tenant, since, until)
            assert [Decimal(item["value"]) for item in told if item["value"] is not None] == figure, slug
        [level] = await installation.ask("level", tenant, since, until)
        held = value_hours(samples["level"], until)
        assert held is not None
        assert abs(Decimal(level["value"]) - held) < Decimal("1e-9")
        days = {
            "paths": lambda found: Decimal(len({each.value for each in found})),
            "last": lambda found: max(found).value,
        }
        for slug, figure_of in days.items():
            by_day: dict[date, list[Sample]] = {}
            for each in samples[slug]:
                by_day.setdefault(each.time.date(), []).append(each)
            told = await installation.ask(slug, tenant, since, until, window="day")
            found = {datetime.fromisoformat(each["window_start"]).date(): Decimal(each["value"]) for each in told}
            assert found == {day: figure_of(those) for day, those in by_day.items()}, slug


async def compare_entitlements(installation: Installation, expected: Expected) -> None:
    """Balances and alerts are those of what counts at the end, whatever was raised and cleared on the way."""
    tenants = installation.tenants

    async def settled() -> bool:
        return is_settled(await installation.read(BALANCES), expected, tenants)

    await eventually(settled, within=60, interval=0.5)
    await eventually(installation.settled, within=60, interval=0.5)
    compare_alerts(await installation.read(ALERTS), expected, tenants)


async def compare_told(installation: Installation, workload: Workload, expected: Expected) -> None:
    """What is not counted was told, once."""
    wanted = not_counted(expected, workload.refused)
    # Relays look for it now and then, and at their start.
    await installation.kill_relays()

    async def told() -> bool:
        rows = await installation.fetch(_TOLD)
        return wanted <= {(each["tenant"], each["kind"], each["reason"]) for each in rows if each["told"]} and all(
            each["told"] for each in rows
        )

    await eventually(told, within=60, interval=0.5)
    await eventually(installation.settled, within=60, interval=0.5)
    compare_not_counted(await installation.read(ALERTS), wanted, expected)


def _first_differences(found: Mapping[Window, object], expected: Mapping[Window, object]) -> str:
    windows = sorted(window for window in found.keys() | expected.keys() if found.get(window) != expected.get(window))
    lines = [f"{window}\n  is {found.get(window)}\n  not {expected.get(window)}" for window in windows[:3]]
    return "\n".join([f"{len(windows)} windows differ", *lines])


async def _published(installation: Installation) -> Versioned:
    last: Versioned = {}
    versions: dict[bytes, int] = {}
    for each in await installation.read(ROLLUPS):
        if each.value is None or b"|" not in each.key:  # what marks a cut
            continue
        record = json.loads(each.value)
        assert record["version"] >= versions.get(each.key, 0), "an older state was published after a newer one"
        versions[each.key] = record["version"]
        opening = datetime.fromisoformat(record["window_start"])
        window = _window(record["tenant_id"], record["meter"], opening, record["group"])
        last[window] = record["version"], _figure_of_record(record)
    return last


def _figure_of_row(row: asyncpg.Record) -> Figure:
    latest = None
    if row["latest"] is not None:
        latest = Sample(
            row["latest_time"].astimezone(UTC),
            row["latest_received_at"].astimezone(UTC),
            row["latest_partition"],
            row["latest_offset"],
            row["latest"],
        )
    first = row["first_time"]
    return Figure(
        row["count"],
        row["sum"],
        row["minimum"],
        row["maximum"],
        row["uniques"],
        latest,
        None if first is None else first.astimezone(UTC),
        row["integral"],
    )


def _figure_of_record(record: Mapping[str, Any]) -> Figure:
    latest = None
    if record["latest"] is not None:
        said = record["latest"]
        latest = Sample(
            datetime.fromisoformat(said["time"]),
            datetime.fromisoformat(said["received_at"]),
            said["partition"],
            said["offset"],
            Decimal(said["value"]),
        )
    first = record["first_time"]
    return Figure(
        int(record["count"]),
        _number(record["sum"]),
        _number(record["min"]),
        _number(record["max"]),
        None if record["unique_count"] is None else int(record["unique_count"]),
        latest,
        None if first is None else datetime.fromisoformat(first),
        _number(record["integral"]),
    )


def _window(tenant: str, slug: str, hour: datetime, group: str | dict[str, str]) -> Window:
    decoded = json.loads(group) if isinstance(group, str) else group
    return Window(tenant, slug, hour.astimezone(UTC), json.dumps(decoded, sort_keys=True))


def _number(text: str | None) -> Decimal | None:
    return None if text is None else Decimal(text)
