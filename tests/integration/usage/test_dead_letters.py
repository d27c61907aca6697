"""Dead letters: who sees them, what is counted of them, and that a replay counts once."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime, timedelta

import pytest

from tenantry import Tier
from tenantry.events import UsageProducer
from tenantry.identity import Scope
from tenantry.testing import eventually
from usage_service.dead_letters import repository, service
from usage_service.dead_letters.unmatched import UNMATCHED, observe_unmatched
from usage_service.metering.dead_letters import LETTERS

from .support import API_CALLS, BANDWIDTH, end_offsets, event

NOW = datetime.now(UTC).replace(microsecond=0)
LONG_AGO = (NOW - timedelta(days=60)).isoformat()
SPAN = {"from": (NOW - timedelta(days=90)).isoformat(), "to": (NOW + timedelta(days=1)).isoformat()}


async def letters(usage, headers=None, **params) -> list[dict]:
    response = await usage.http.get("/v1/dead-letters", params=params, headers=headers or usage.operator)
    assert response.status_code == 200, response.text
    return response.json()["items"]


async def replay(usage, letter_id: str, headers=None):
    return await usage.http.post(f"/v1/dead-letters/{letter_id}/replay", headers=headers or usage.operator)


async def replay_all(usage, headers=None, **asked):
    return await usage.http.post("/v1/dead-letters/replay", json=asked, headers=headers or usage.operator)


async def in_kafka(usage) -> int:
    return sum((await end_offsets(usage.kafka, "usage.events.v1")).values())


async def test_a_late_event_is_refused_kept_once_and_counts_once_when_it_is_replayed(usage, tenant_a):
    await usage.put_meter("bandwidth", BANDWIDTH)
    late, counted = event(tenant_a, 1, time=LONG_AGO), LETTERS.labels("late")._value.get()
    for _ in range(2):
        refused = await usage.send(late)
        assert (refused.status_code, refused.json()["errors"][0]["kind"]) == (400, "too-old")
    partial = await usage.send(late, event(tenant_a, 2), partial="true")
    assert partial.json()["accepted"] == 1
    [letter] = await letters(usage, kind="late")
    assert (letter["tenant_id"], letter["event_id"], letter["partition"]) == (str(tenant_a.id), "e-1", None)
    assert json.loads(letter["payload"]) == late
    assert LETTERS.labels("late")._value.get() == counted + 1

    first = await replay(usage, letter["id"])
    assert first.status_code == 200, first.text
    assert first.json()["replayed_at"]
    again = await replay(usage, letter["id"])
    assert again.json() == first.json()
    assert await in_kafka(usage) == 2
    async with usage.metering():
        await eventually(usage.counted, within=60)
    assert [item["value"] for item in (await usage.query(tenant_a, "bandwidth", **SPAN))["items"]] == ["20"]
    assert await letters(usage, kind="late", replayed="false") == []
    [listed] = await letters(usage, kind="late", replayed="true")
    assert listed["replayed_by"] == first.json()["replayed_by"]


async def test_a_page_of_large_letters_ends_by_their_bytes(usage, tenant_a, monkeypatch):
    monkeypatch.setattr(repository, "_PAGE_BYTES", 2_000)
    sizes = [10, 10, 3_000, 900, 900, 900, 10]
    for number, size in enumerate(sizes):
        await usage.send(event(tenant_a, number, time=LONG_AGO, data={"text": "x" * size}))
    pages: list[list[int]] = []
    cursor: dict[str, str] = {}
    while not pages or cursor:
        answer = await usage.http.get("/v1/dead-letters", params={"limit": 4, **cursor}, headers=usage.operator)
        page = answer.json()
        pages.append([len(json.loads(each["payload"])["data"]["text"]) for each in page["items"]])
        cursor = {"cursor": page["next_cursor"]} if page["next_cursor"] else {}
    assert pages == [[10, 900, 900], [900, 3_000], [10, 10]]
    whole = await letters(usage, tenant_id=str(tenant_a.id), limit=2)
    assert len(whole) == 2


async def test_a_replay_whose_mark_was_lost_counts_once(usage, tenant_a):
    """Kafka has it and the process died: the letter is still open and is sent again."""
    await usage.put_meter("bandwidth", BANDWIDTH)
    await usage.send(event(tenant_a, 1, time=LONG_AGO))
    [letter] = await letters(usage)
    async with usage.metering():
        for _ in range(2):
            assert (await replay(usage, letter["id"])).status_code == 200
            async with usage.database.connect() as connection:
                await connection.execute("UPDATE pool.dead_letter SET replayed_at = NULL, replayed_by = NULL")
        await eventually(usage.counted, within=60)
    assert await in_kafka(usage) == 2
    assert [item["value"] for item in (await usage.query(tenant_a, "bandwidth", **SPAN))["items"]] == ["10"]


@pytest.mark.parametrize("how", ["away", "silent"])
async def test_a_database_that_is_away_does_not_stop_the_ingest(usage, tenant_a, monkeypatch, how):
    async def fail(*_arguments, **_named):
        if how == "silent":
            await asyncio.Event().wait()
        raise ConnectionRefusedError

    monkeypatch.setattr(service, "write_dead_letters", fail)
    monkeypatch.setattr(service, "_KEEP_SECONDS", 0.1)
    lost = service.LATE_LOST._value.get()
    answer = await usage.send(event(tenant_a, 1, time=LONG_AGO), event(tenant_a, 2), partial="true")
    assert (answer.status_code, answer.json()["accepted"]) == (202, 1)
    assert service.LATE_LOST._value.get() == lost + 1
    assert await letters(usage) == []


async def test_nothing_is_marked_while_kafka_is_away(usage, tenant_a, monkeypatch):
    await usage.send(event(tenant_a, 1, time=LONG_AGO))
    [letter] = await letters(usage)

    async def away(producer, _events):
        raise producer._refusal("away", "Kafka is not reachable")

    with monkeypatch.context() as patch:
        patch.setattr(UsageProducer, "send", away)
        assert (await replay(usage, letter["id"])).status_code == 503
        assert (await replay_all(usage)).status_code == 503
    assert [each["replayed_at"] for each in await letters(usage)] == [None]
    assert (await replay(usage, letter["id"])).status_code == 200


async def test_only_what_a_replay_would_count_is_sent(usage, tenant_a, tenant_factory, monkeypatch):
    monkeypatch.setattr("usage_service.metering.worker.PARKED_SECONDS", 1)
    await usage.put_meter("bandwidth", BANDWIDTH)
    first, stranger = event(tenant_a, 1), tenant_factory()
    async with usage.metering():
        await usage.send(first, event(tenant_a, 2, data={"bytes": "x"}))
        await eventually(usage.counted, within=60)
        await usage.send({**first, "data": {"bytes": 99}})
        await usage.produce([b"{nonsense", json.dumps(event(stranger, 3)).encode()], [tenant_a.id, stranger.id])
        await eventually(lambda: letters(usage, kind="unknown-tenant"), within=60)
        await eventually(usage.counted, within=60)
        by_kind = {letter["kind"]: letter for letter in await letters(usage)}
        assert set(by_kind) == {"conflict", "invalid-value", "undecodable", "unknown-tenant"}
        sent = await in_kafka(usage)
        for letter in by_kind.values():
            refused = await replay(usage, letter["id"])
            assert (refused.status_code, refused.json()["type"]) == (409, "not-replayable"), refused.text
        done = (await replay_all(usage)).json()
        assert ({each["id"] for each in done["refused"]}, done["replayed"]) == (
            {letter["id"] for letter in by_kind.values()},
            [],
        )
        assert await in_kafka(usage) == sent
        # Whoever was a stranger has come.
        usage.state.directory.upsert(stranger)
        assert (await replay(usage, by_kind["unknown-tenant"]["id"])).status_code == 200
        await eventually(usage.counted, within=60)
    assert [item["value"] for item in (await usage.query(stranger, "bandwidth", **SPAN))["items"]] == ["10"]

    detail = await usage.http.get(f"/v1/dead-letters/{by_kind['conflict']['id']}", headers=usage.operator)
    assert json.loads(detail.json()["payload"])["data"] == {"bytes": 99}
    assert json.loads(detail.json()["stored"]["data"]) == first["data"]


async def test_letters_are_filtered_counted_and_replayed_by_page(usage, tenant_a, tenant_b):
    await usage.put_meter("bandwidth", BANDWIDTH)
    await usage.put_meter("calls", API_CALLS)
    late = [event(tenant_a, n, time=LONG_AGO) for n in range(5)] + [event(tenant_b, 1, time=LONG_AGO, type="other")]
    await usage.send(*late)
    async with usage.metering():
        await usage.send(event(tenant_a, 9, data={"bytes": "x"}))
        await eventually(usage.counted, within=60)
        own = {"tenant_id": str(tenant_a.id)}
        assert len(await letters(usage)) == 7
        assert len(await letters(usage, **own)) == 6
        assert [each["event_id"] for each in await letters(usage, type="other")] == ["e-1"]
        assert [each["event_id"] for each in await letters(usage, meter="bandwidth")] == ["e-9"]
        assert await letters(usage, meter="calls") == []
        assert await letters(usage, to=NOW.isoformat()) == []
        since = {"from": (NOW - timedelta(minutes=1)).isoformat()}
        assert len(await letters(usage, **since)) == 7

        replayed, cursor = [], None
        while True:
            page = (await replay_all(usage, kind="late", type="http.request", limit=2, cursor=cursor)).json()
            replayed += page["replayed"]
            if (cursor := page["next_cursor"]) is None:
                break
        assert len(set(replayed)) == len(replayed) == 5
        assert (await replay_all(usage, kind="late", type="http.request")).json()["replayed"] == []
        await eventually(usage.counted, within=60)
    assert [item["value"] for item in (await usage.query(tenant_a, "bandwidth", **SPAN))["items"]] == ["50"]
    summary = (await usage.http.get("/v1/dead-letters/summary", headers=usage.operator)).json()["items"]
    assert {(each["tenant_id"], each["kind"], each["count"], each["replayed"]) for each in summary} == {
        (str(tenant_a.id), "late", 5, 5),
        (str(tenant_a.id), "invalid-value", 1, 0),
        (str(tenant_b.id), "late", 1, 0),
    }


async def test_a_tenant_sees_its_own_letters_and_replays_none(usage, tenant_a, tenant_b):
    await usage.send(event(tenant_a, 1, time=LONG_AGO))
    await usage.produce([b"{nonsense"], [tenant_a.id])
    async with usage.metering():
        await eventually(usage.counted, within=60)
    [letter] = await letters(usage, kind="late")
    [nobodys] = await letters(usage, kind="undecodable")
    admin_of_a, admin_of_b = (usage.state.key(Scope.TENANT_ADMIN, tenant=each) for each in (tenant_a, tenant_b))
    assert [each["id"] for each in await letters(usage, admin_of_a)] == [letter["id"]]
    assert await letters(usage, admin_of_b) == []
    for letter_id, headers in ((letter["id"], admin_of_b), (nobodys["id"], admin_of_a), (nobodys["id"], admin_of_b)):
        answer = await usage.http.get(f"/v1/dead-letters/{letter_id}", headers=headers)
        assert answer.status_code == 404
    assert (await usage.http.get(f"/v1/dead-letters/{letter['id']}", headers=admin_of_a)).status_code == 200
    summary = (await usage.http.get("/v1/dead-letters/summary", headers=admin_of_a)).json()["items"]
    assert [(each["kind"], each["count"]) for each in summary] == [("late", 1)]
    # A tenant that could accept its own late events would have no limit of age.
    for headers in (admin_of_a, admin_of_b, usage.service):
        assert (await replay(usage, letter["id"], headers)).status_code == 403
        assert (await replay_all(usage, headers)).status_code == 403
    selected = usage.operator | {"X-Tenant-ID": str(tenant_b.id)}
    assert (await replay(usage, letter["id"], selected)).status_code == 404
    assert (await replay_all(usage, selected)).json()["replayed"] == []


async def test_history_is_accepted_of_operators_who_ask_for_it(usage, tenant_a):
    await usage.put_meter("bandwidth", BANDWIDTH)
    old = event(tenant_a, 1, time="2015-05-17T10:05:03Z")
    assert (await usage.send(old, headers=usage.operator)).status_code == 400
    for caller in (usage.service, usage.state.key(Scope.TENANT_ADMIN, tenant=tenant_a)):
        refused = await usage.send(old, headers=caller, accept_late="true")
        assert (refused.status_code, refused.json()["type"]) == (403, "forbidden")
    too_old = event(tenant_a, 2, time="1999-12-31T23:59:59Z")
    assert (await usage.send(too_old, headers=usage.operator, accept_late="true")).status_code == 400
    async with usage.metering():
        assert (await usage.send(old, headers=usage.operator, accept_late="true")).status_code == 202
        await eventually(usage.counted, within=60)
    span = {"from": "2015-05-01T00:00:00Z", "to": "2015-06-01T00:00:00Z"}
    assert [item["value"] for item in (await usage.query(tenant_a, "bandwidth", **span))["items"]] == ["10"]


async def test_more_letters_than_are_held_at_once_are_replayed_by_one_request(usage, tenant_a):
    await usage.put_meter("calls", API_CALLS)
    await usage.send(*(event(tenant_a, n, time=LONG_AGO) for n in range(45)))
    first = (await replay_all(usage, limit=41)).json()
    assert len(set(first["replayed"])) == 41
    rest = (await replay_all(usage, cursor=first["next_cursor"])).json()
    assert (len(rest["replayed"]), rest["next_cursor"]) == (4, None)
    assert await in_kafka(usage) == 45


async def test_unmatched_events_are_a_figure_to_be_alerted_by(usage, tenant_a, tenant_b):
    async with usage.metering():
        await usage.send(
            event(tenant_a, 1, type="new"), event(tenant_a, 2, type="new"), event(tenant_b, 1, type="other")
        )
        await eventually(usage.counted, within=60)
    assert await observe_unmatched(usage.databases.system) == 3
    assert UNMATCHED._value.get() == 3


@pytest.mark.parametrize(
    "params",
    [
        {"kind": "other"},
        {"from": "2026-01-01T00:00:00"},
        {"from": "0001-01-01T00:00:00+14:00"},
        {"to": "9999-12-31T23:59:59-14:00"},
        {"type": "a\0b"},
        {"meter": "\0"},
        {"replayed": "maybe"},
    ],
)
async def test_filters_that_make_no_sense(usage, params):
    for path in ("/v1/dead-letters", "/v1/dead-letters/summary"):
        assert (await usage.http.get(path, params=params, headers=usage.operator)).status_code == 422
    body = {**params, "replayed": None} if "replayed" in params else params
    assert (await usage.http.post("/v1/dead-letters/replay", json=body, headers=usage.operator)).status_code == 422


async def test_an_age_of_the_tier_makes_no_letters_where_there_is_none(usage, tenant_a):
    usage.state.directory.upsert_tier(Tier(name="standard", version=2, max_event_age_seconds=None))
    assert (await usage.send(event(tenant_a, 1, time=LONG_AGO))).status_code == 202
    assert await letters(usage) == []
