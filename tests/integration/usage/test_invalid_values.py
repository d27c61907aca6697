"""Values that a meter could not count: replayed with another value, or under another meter, they count once."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime, timedelta

import pytest

from tenantry.testing import eventually
from usage_service.dead_letters import replaying

from .support import BANDWIDTH, event
from .test_dead_letters import LONG_AGO, in_kafka, letters, replay_all

NOW = datetime.now(UTC).replace(microsecond=0)
SPAN = {"from": (NOW - timedelta(days=90)).isoformat(), "to": (NOW + timedelta(days=1)).isoformat()}
CALLS = {"event_type": "http.request", "aggregation": "count"}
LARGEST = {"event_type": "http.request", "aggregation": "max", "value": "$.size.largest"}


async def replay(usage, letter, **change):
    content = json.dumps(change).encode() if change else b""
    return await usage.http.post(f"/v1/dead-letters/{letter['id']}/replay", content=content, headers=usage.operator)


async def figures(usage, tenant, *meters) -> list[str | None]:
    await eventually(usage.counted, within=60)
    found = [(await usage.query(tenant, meter, **SPAN))["items"] for meter in meters]
    return [items[0]["value"] if items else None for items in found]


@pytest.fixture
async def invalid(usage, tenant_a):
    """Events that `bandwidth` counted (10), and could not count, while `calls` counted both; and the letter."""
    await usage.put_meter("bandwidth", BANDWIDTH)
    await usage.put_meter("calls", CALLS)
    async with usage.metering():
        await usage.send(event(tenant_a, 1), event(tenant_a, 2, data={"bytes": "x", "size": 5, "at": 0.1}))
        assert await figures(usage, tenant_a, "bandwidth", "calls") == ["10", "2"]
        [letter] = await letters(usage, kind="invalid-value")
        yield letter


async def test_a_value_that_is_given_counts_once_for_its_meter_and_as_before_for_the_others(usage, tenant_a, invalid):
    done = await replay(usage, invalid, value="12.5")
    assert done.status_code == 200, done.text
    assert await figures(usage, tenant_a, "bandwidth", "calls") == ["22.5", "2"]
    assert (await replay(usage, invalid, value="99")).json() == done.json()  # it was replayed: nothing is sent again
    assert await figures(usage, tenant_a, "bandwidth", "calls") == ["22.5", "2"]
    listed = (await usage.http.get("/v1/events", params=SPAN, headers=usage.tenant_key(tenant_a))).json()["items"]
    [counted] = [each for each in listed if each["id"] == invalid["id"]]
    assert counted["data"] == {"bytes": "12.5", "size": 5, "at": 0.1}
    [correction] = (await usage.http.get("/v1/corrections", headers=usage.operator)).json()["items"]
    assert (correction["cancels"]["id"], correction["replacement"]["id"]) == ("e-2", invalid["id"])
    assert correction["reason"] == f"replay of dead letter {invalid['id']}"


async def test_without_a_change_it_is_refused_until_the_meter_can_count_it(usage, tenant_a, invalid):
    sent = await in_kafka(usage)
    for change in ({}, {"value": "much"}, {"data": {"bytes": None}}):
        refused = await replay(usage, invalid, **change)
        assert (refused.status_code, refused.json()["type"]) == (409, "not-replayable"), refused.text
        assert "bandwidth still cannot count it" in refused.json()["detail"]
    assert (await replay_all(usage)).json()["replayed"] == []
    assert await in_kafka(usage) == sent
    await usage.put_meter("bandwidth", BANDWIDTH | {"value": "$.size"})
    assert (await replay_all(usage)).json()["replayed"] == [invalid["id"]]
    assert await figures(usage, tenant_a, "bandwidth", "calls") == ["15", "2"]
    assert (await replay_all(usage)).json()["replayed"] == []


async def test_a_replay_that_dies_before_its_mark_counts_once(usage, tenant_a, invalid, monkeypatch):
    async def die(*_arguments, **_named):
        raise RuntimeError("killed")

    for _ in range(2):
        with monkeypatch.context() as patch:
            patch.setattr(replaying, "mark_replayed", die)
            assert (await replay(usage, invalid, value=7)).status_code == 500
        assert await figures(usage, tenant_a, "bandwidth", "calls") == ["17", "2"]
    # What Kafka has is what holds: another value would be another correction of the same event.
    other = await replay(usage, invalid, value=8)
    assert (other.status_code, "corrected already" in other.json()["detail"]) == (409, True)
    assert (await replay(usage, invalid, value=7)).status_code == 200
    assert await figures(usage, tenant_a, "bandwidth", "calls") == ["17", "2"]


async def test_what_several_meters_could_not_count_is_replayed_once(usage, tenant_a):
    await usage.put_meter("bandwidth", BANDWIDTH)
    await usage.put_meter("largest", LARGEST)
    async with usage.metering():
        await usage.send(event(tenant_a, 1, data={"bytes": "x"}), event(tenant_a, 2, data={"bytes": "y"}))
        await eventually(usage.counted, within=60)
        found = {(each["event_id"], each["reason"]): each for each in await letters(usage, kind="invalid-value")}
        assert len(found) == 4
        of_first = [each for (event_id, _), each in found.items() if event_id == "e-1"]
        both = {"bytes": 3, "size": {"largest": 40}}
        assert (await replay(usage, of_first[0], data=both)).status_code == 200
        assert await figures(usage, tenant_a, "bandwidth", "largest") == ["3", "40"]
        assert len(await letters(usage, kind="invalid-value", replayed="false")) == 2  # those of the other event
        # A value for one of them: what counts instead has a letter of the other.
        of_largest = next(each for each in await letters(usage, meter="largest", replayed="false"))
        assert (await replay(usage, of_largest, value=50)).status_code == 200
        assert await figures(usage, tenant_a, "bandwidth", "largest") == ["3", "50"]
        [again] = await letters(usage, kind="invalid-value", replayed="false")
        assert again["event_id"] == of_largest["id"]
        assert (await replay(usage, again, value=4)).status_code == 200
        assert await figures(usage, tenant_a, "bandwidth", "largest") == ["7", "50"]


async def test_replays_of_letters_about_one_event_do_not_wait_for_each_other(usage, tenant_a):
    """The newest is locked first, also for the replay of an older one, which holds nothing while it waits for it."""
    await usage.put_meter("bandwidth", BANDWIDTH)
    await usage.put_meter("largest", LARGEST)
    async with usage.metering():
        await usage.send(event(tenant_a, 1, data={"bytes": "x"}))
        await eventually(usage.counted, within=60)
        newest, oldest = await letters(usage, kind="invalid-value")

        async with usage.database.connect() as other, usage.database.connect() as third:

            async def somebody_waits() -> bool:
                waiting = "SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted AND pid <> pg_backend_pid())"
                return bool(await third.fetchval(waiting))

            async with other.transaction():
                await other.execute("SELECT FROM pool.dead_letter WHERE id = $1 FOR UPDATE", newest["id"])
                both = {"bytes": 3, "size": {"largest": 40}}
                replaying_oldest = asyncio.create_task(replay(usage, oldest, data=both))
                await eventually(somebody_waits)
                await third.execute("SELECT FROM pool.dead_letter WHERE id = $1 FOR UPDATE NOWAIT", oldest["id"])
            assert (await replaying_oldest).status_code == 200
        assert await figures(usage, tenant_a, "bandwidth", "largest") == ["3", "40"]


async def test_what_has_been_archived_takes_no_replay(usage, tenant_a, invalid):
    await usage.send(event(tenant_a, 3, time=LONG_AGO))
    [late] = await letters(usage, kind="late")
    beside = (datetime.fromisoformat(LONG_AGO) + timedelta(days=1)).date()
    await usage.fetch("INSERT INTO system.gone_day (day) VALUES ($1)", beside)
    try:
        sent = await in_kafka(usage)
        refused = await replay(usage, late)
        assert (refused.status_code, "has left PostgreSQL" in refused.json()["detail"]) == (409, True), refused.text
        assert [each["id"] for each in (await replay_all(usage, kind="late")).json()["refused"]] == [late["id"]]
        # The worker would cancel the event and keep what counts instead from the day: neither must happen.
        yesterday = datetime.fromisoformat(json.loads(invalid["payload"])["time"]).date() - timedelta(days=1)
        await usage.fetch("INSERT INTO system.gone_day (day) VALUES ($1)", yesterday)
        refused = await replay(usage, invalid, value=7)
        assert (refused.status_code, "has left PostgreSQL" in refused.json()["detail"]) == (409, True), refused.text
        await usage.fetch("DELETE FROM system.gone_day WHERE day = $1", yesterday)
        await usage.fetch("DELETE FROM pool.usage_event WHERE event_id = 'e-2'")
        refused = await replay(usage, invalid, value=7)
        assert (refused.status_code, "has left PostgreSQL" in refused.json()["detail"]) == (409, True), refused.text
        assert await in_kafka(usage) == sent
    finally:
        await usage.fetch("DELETE FROM system.gone_day")
    assert (await replay(usage, late)).status_code == 200


@pytest.mark.parametrize(
    ("body", "status"),
    [(b"{", 400), (b"[]", 422), (b'{"values": 1}', 422), (b'{"value": true}', 422), (b'{"value": 1, "data": {}}', 422)],
)
async def test_changes_that_make_no_sense(usage, invalid, body, status):
    url = f"/v1/dead-letters/{invalid['id']}/replay"
    assert (await usage.http.post(url, content=body, headers=usage.operator)).status_code == status


async def test_only_an_invalid_value_can_be_said_otherwise(usage, tenant_a):
    await usage.send(event(tenant_a, 1, time=LONG_AGO))
    [late] = await letters(usage, kind="late")
    assert (await replay(usage, late, value=1)).status_code == 409
