"""Letters of late events: one for each event and day, and never lost for one that was only refused."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest

from tenantry.testing import eventually

from .support import BANDWIDTH, event

NOW = datetime.now(UTC).replace(microsecond=0)
OLD = [NOW - timedelta(days=60), NOW - timedelta(days=50)]
SPAN = {"from": (NOW - timedelta(days=90)).isoformat(), "to": NOW.isoformat()}


async def late_letters(usage) -> list[dict]:
    response = await usage.http.get("/v1/dead-letters", params={"kind": "late"}, headers=usage.operator)
    assert response.status_code == 200, response.text
    return response.json()["items"]


async def replay(usage, letter: dict) -> dict:
    answer = await usage.http.post(f"/v1/dead-letters/{letter['id']}/replay", headers=usage.operator)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def refuse(usage, *events: dict) -> None:
    answer = await usage.send(*events)
    assert (answer.status_code, answer.json()["errors"][0]["kind"]) == (400, "too-old")


async def accept_late(usage, *events: dict) -> None:
    answer = await usage.send(*events, headers=usage.operator, accept_late="true")
    assert answer.status_code == 202, answer.text


@pytest.fixture
async def gone(usage):
    """The days of `OLD` have left for the archive."""
    await usage.fetch("INSERT INTO system.gone_day SELECT unnest($1::date[])", [day.date() for day in OLD])
    return usage


async def test_an_id_that_returns_after_the_window_is_a_letter_of_its_own(usage, tenant_a):
    await usage.put_meter("bandwidth", BANDWIDTH)
    for _ in range(2):
        for day in OLD:
            await refuse(usage, event(tenant_a, 1, time=day.isoformat()))
    found = await late_letters(usage)
    assert {json.loads(letter["payload"])["time"] for letter in found} == {day.isoformat() for day in OLD}
    assert len(found) == 2
    for letter in found:
        await replay(usage, letter)
    async with usage.metering():
        await eventually(usage.counted, within=60)
    assert [item["value"] for item in (await usage.query(tenant_a, "bandwidth", **SPAN))["items"]] == ["20"]


async def test_every_accepted_event_of_a_day_that_is_gone_has_a_letter(gone, tenant_a):
    """Copies in one batch and in another have one, with what the first of them said."""
    days = [event(tenant_a, 1, time=day.isoformat(), data={"bytes": n}) for n, day in enumerate(OLD)]
    async with gone.metering():
        for _ in range(2):
            await accept_late(gone, *days, {**days[0], "data": {"bytes": 99}})
            await eventually(gone.counted, within=60)
    found = await late_letters(gone)
    assert sorted(json.loads(letter["payload"])["data"]["bytes"] for letter in found) == [0, 1]
    assert all(letter["partition"] is not None for letter in found)


async def test_what_was_accepted_is_not_lost_for_what_was_refused(gone, tenant_a):
    refused = event(tenant_a, 1, time=OLD[0].isoformat(), data={"bytes": 1})
    await refuse(gone, refused)
    [before] = await late_letters(gone)
    async with gone.metering():
        await accept_late(gone, {**refused, "data": {"bytes": 2}})
        await eventually(gone.counted, within=60)
    await refuse(gone, refused)
    [letter] = await late_letters(gone)
    assert letter["id"] == before["id"]
    assert (json.loads(letter["payload"])["data"], letter["partition"] is None) == ({"bytes": 2}, False)
    assert "left for the archive" in letter["reason"]
