"""Filters, formats, several meters at once, and the way from each figure to its events."""

from __future__ import annotations

import io
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any
from uuid import UUID

import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet
import pytest

from tenantry.http import encode_cursor
from tenantry.testing import eventually
from usage_service.metering.rollups import RollupStore
from usage_service.queries import raw_events

from .support import event

START = (datetime.now(UTC) - timedelta(days=2)).replace(hour=10, minute=0, second=0, microsecond=0)
SPAN = {"from": START.isoformat(), "to": (START + timedelta(hours=4)).isoformat()}
REQUESTS = {
    "event_type": "http.request",
    "aggregation": "count",
    "group_by": {"method": "$.method", "status": "$.status"},
}
VOLUME = {
    "event_type": "http.request",
    "aggregation": "sum",
    "value": "$.bytes",
    "group_by": {"method": "$.method", "status": "$.status"},
    "filter": {"$.internal": {"ne": True}},
}
DATA: list[dict[str, Any]] = [
    {"method": "GET", "status": 200, "bytes": 10, "path": "/a", "tls": True},
    {"method": "GET", "status": 404, "bytes": "2.5", "path": "/a/b", "tls": False},
    {"method": "POST", "status": 500, "bytes": 7, "path": "/b"},
    {"status": 503, "bytes": 100, "path": "/c", "tls": True},
    {"method": "GET", "status": 200, "bytes": 1000, "path": "/a", "internal": True},
    {"method": "GET", "status": 200, "bytes": "much", "path": "/a"},
]


@pytest.fixture
async def asked(usage, tenant_a):
    """A service that has counted `DATA`, one event every forty minutes."""
    await usage.put_meter("requests", REQUESTS)
    await usage.put_meter("volume", VOLUME)
    async with usage.metering():
        await usage.send(
            *[
                event(tenant_a, number, time=(START + timedelta(minutes=40 * number)).isoformat(), data=data)
                for number, data in enumerate(DATA)
            ]
        )
        await eventually(usage.counted, within=60)
    return usage


FILTERS: list[tuple[dict[str, Any], str]] = [
    ({"filter[method]": "GET"}, "12.5"),
    ({"filter[method]": ["GET", "POST"]}, "19.5"),
    ({"filter[method]": ""}, "100"),
    ({"filter[method][eq]": "POST"}, "7"),
    ({"filter[method][ne]": "GET"}, "107"),
    ({"filter[method][in]": ["POST", "PUT"]}, "7"),
    ({"filter[method][exists]": "false"}, "100"),
    ({"filter[method][exists]": "true"}, "19.5"),
    ({"filter[method][like]": "%T"}, "19.5"),
    ({"filter[method][like]": "G_T"}, "12.5"),
    ({"filter[status][gt]": "404"}, "107"),
    ({"filter[status][gte]": "404"}, "109.5"),
    ({"filter[status][lt]": "404"}, "10"),
    ({"filter[status][lte]": "404.0"}, "12.5"),
    ({"filter[status][gte]": "404", "filter[method]": "GET"}, "2.5"),
    ({"filter[status][gte]": ["404", "501"]}, "100"),
    ({"filter[$.path]": "/a"}, "10"),
    ({"filter[$.path][like]": "/a%"}, "12.5"),
    ({"filter[$.tls]": "true"}, "110"),
    ({"filter[$.tls][exists]": "false"}, "7"),
    ({"filter[$['status']][gte]": "500"}, "107"),
    ({"filter[$.path][ne]": "/c", "filter[status][gt]": "200"}, "9.5"),
]


@pytest.mark.parametrize("window", ["none", "hour", "minute"])
async def test_every_operator_filters_dimensions_and_data(asked, tenant_a, window):
    for filters, total in FILTERS:
        answer = await asked.query(tenant_a, "volume", window=window, **SPAN, **filters)
        assert sum(Decimal(item["value"]) for item in answer["items"]) == Decimal(total), filters


@pytest.mark.parametrize(
    ("parameters", "loc"),
    [
        ({"filter[colour]": "red"}, "filter"),
        ({"filter[status][gt]": "many"}, "filter[status][gt]"),
        ({"filter[method][exists]": "perhaps"}, "filter[method][exists]"),
        ({"filter[$..path]": "/a"}, "filter"),
        ({"group_by": "colour"}, "group_by"),
        ({"received_before": "2026-01-01T00:00:00"}, "received_before"),
        ({"received_before": "0001-01-01T00:00:00+14:00"}, "received_before"),
        ({"from": "2026-01-02T00:00:00Z", "to": "2026-01-01T00:00:00Z"}, "to"),
        ({"from": "2026"}, "from"),
        ({"to": "1767225600"}, "to"),
        ({"from": ["2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z"]}, "from"),
        ({"filter[method": "GET"}, "filter[method"),
        ({"filter": "GET"}, "filter"),
        ({"filter.method": "GET"}, "filter.method"),
        ({"filters[method]": "GET"}, "filters[method]"),
        ({"filter[method][near]": "GET"}, "filter"),
        ({"filter[]": "GET"}, "filter"),
        ({"filter[$.path][like]": "%" * 600}, "filter[$.path][like]"),
        ({"group[method": "GET"}, "group[method"),
        ({"status": ""}, "status"),
    ],
)
async def test_what_cannot_be_asked_is_refused_with_its_place(asked, tenant_a, parameters, loc):
    for path in ("meters/volume/query", "events") if "group_by" not in parameters else ("meters/volume/query",):
        response = await asked.http.get(
            f"/v1/{path}",
            params={"tenant_id": str(tenant_a.id), "meter": "volume", **SPAN, **parameters},
            headers=asked.operator,
        )
        assert response.status_code == 422, response.text
        assert response.json()["errors"][0]["loc"] == ["query", loc]


async def test_a_cursor_that_somebody_made_up_is_no_error_of_ours(asked, tenant_a):
    for moment, status in (
        (datetime(2026, 1, 1), 400),  # noqa: DTZ001 (what is wrong with it)
        (datetime.min.replace(tzinfo=timezone(timedelta(hours=14))), 200),
        (datetime.max.replace(tzinfo=timezone(timedelta(hours=-14))), 200),
    ):
        params = {"tenant_id": str(tenant_a.id), **SPAN, "cursor": encode_cursor((moment, UUID(int=0)), of="events")}
        response = await asked.http.get("/v1/events", params=params, headers=asked.operator)
        assert response.status_code == status, response.text


@pytest.mark.parametrize(("room", "count"), [(0, 5), (150, 3), (1 << 20, 1)])
@pytest.mark.parametrize("of", [{}, {"meter": "requests", "filter[$.bytes][exists]": "true"}])
async def test_a_page_of_large_events_ends_by_their_bytes(asked, tenant_a, monkeypatch, room, count, of):
    monkeypatch.setattr(raw_events, "_PAGE_BYTES", room)
    pages: list[list[str]] = []
    cursor: dict[str, str] = {}
    while not pages or cursor:
        params = {"tenant_id": str(tenant_a.id), **SPAN, **of, **cursor}
        page = (await asked.http.get("/v1/events", params=params, headers=asked.operator)).json()
        pages.append([each["id"] for each in page["items"]])
        cursor = {"cursor": page["next_cursor"]} if page["next_cursor"] else {}
    assert [each for page in pages for each in page] == [f"e-{number}" for number in range(len(DATA))]
    assert len(pages) == count  # two events make one page at least


async def test_several_meters_have_one_bound_of_figures(asked, tenant_a, monkeypatch):
    params = {"tenant_id": str(tenant_a.id), **SPAN, "window": "minute", "fill": "zero"}
    meters = [f"m{number}" for number in range(20)]
    for slug in meters:
        await asked.put_meter(slug, REQUESTS)
    monkeypatch.setattr("usage_service.queries.api.MAX_FIGURES", 20 * 240)
    response = await asked.http.get("/v1/query", params={**params, "meter": meters}, headers=asked.operator)
    assert [len(each["items"]) for each in response.json()["meters"]] == [240] * 20
    monkeypatch.setattr("usage_service.queries.api.MAX_FIGURES", 20 * 240 - 1)
    response = await asked.http.get("/v1/query", params={**params, "meter": meters}, headers=asked.operator)
    assert (response.status_code, response.json()["errors"][0]["loc"]) == (422, ["query", "window"])


@pytest.mark.parametrize("aggregation", ["count", "latest", "unique_count", "time_weighted"])
async def test_figures_are_counted_while_they_are_read(asked, tenant_a, monkeypatch, aggregation):
    value = {} if aggregation == "count" else {"value": "$.status"}
    await asked.put_meter("many", {**REQUESTS, **value, "aggregation": aggregation})
    async with asked.metering():
        sent = [
            event(tenant_a, 100 + n, time=START.isoformat(), data={"method": f"m{n}", "status": n}) for n in range(9)
        ]
        await asked.send(*sent)
        await eventually(asked.counted, within=60)
    params = {"tenant_id": str(tenant_a.id), **SPAN, "group_by": "method"}
    for most, status in ((9, 200), (8, 422)):
        monkeypatch.setattr("usage_service.queries.api.MAX_FIGURES", most)
        response = await asked.http.get("/v1/meters/many/query", params=params, headers=asked.operator)
        assert response.status_code == status, response.text


async def test_zeroes_are_filled_in_for_the_groups_that_a_filter_lets_through(asked, tenant_a):
    answer = await asked.query(
        tenant_a, "volume", window="hour", fill="zero", group_by="method", **SPAN, **{"filter[status][lt]": "501"}
    )
    found = {(item["window_start"][11:13], item["group"]["method"]): item["value"] for item in answer["items"]}
    assert found == {
        **{(hour, method): "0" for hour in ("10", "11", "12", "13") for method in ("GET", "POST")},
        ("10", "GET"): "12.5",
        ("11", "POST"): "7",
    }


async def behind(usage, link: str) -> list[dict[str, Any]]:
    """All pages of a link, two events at a time."""
    items: list[dict[str, Any]] = []
    cursor: str | None = ""
    while cursor is not None:
        page = await usage.http.get(f"{link}&limit=2&cursor={cursor}", headers=usage.operator)
        assert page.status_code == 200, page.text
        items += page.json()["items"]
        cursor = page.json()["next_cursor"]
    return items


@pytest.mark.parametrize("filters", [{}, {"filter[$.path][like]": "/a%"}, {"filter[status][gte]": "404"}])
async def test_the_events_behind_every_figure_are_one_link_away(asked, tenant_a, filters):
    cut = {"from": (START + timedelta(minutes=30)).isoformat(), "to": (START + timedelta(minutes=190)).isoformat()}
    for slug, of in (
        ("volume", lambda found: sum(Decimal(each["data"]["bytes"]) for each in found)),
        ("requests", len),
    ):
        answer = await asked.query(tenant_a, slug, window="hour", group_by=["method", "status"], **cut, **filters)
        assert answer["items"]
        for item in answer["items"]:
            assert of(await behind(asked, item["events"])) == Decimal(item["value"])


@pytest.mark.parametrize("aggregation", ["sum", "unique_count"])
async def test_groups_past_the_bound_are_other_wherever_the_figure_comes_from(
    usage, tenant_a, monkeypatch, aggregation
):
    monkeypatch.setattr(RollupStore.__init__, "__kwdefaults__", {"max_groups": 3})
    await usage.put_meter("m", {**VOLUME, "aggregation": aggregation, "group_by": {"path": "$.path"}})
    async with usage.metering():
        for start in (0, 5):
            events = [
                event(
                    tenant_a,
                    number,
                    time=(START + timedelta(minutes=number)).isoformat(),
                    data={"path": f"/{number % 7}", "bytes": number},
                )
                for number in range(start, start + 5)
            ]
            await usage.send(*events)
            await eventually(usage.counted, within=60)
    found = []
    for window in ("none", "minute"):
        answer = await usage.query(tenant_a, "m", group_by="path", window=window, **SPAN)
        totals: dict[str, Decimal] = {}
        for item in answer["items"]:
            path = item["group"]["path"]
            totals[path] = totals.get(path, Decimal(0)) + Decimal(item["value"])
            assert await behind(usage, item["events"])
        found.append(totals)
    assert found[0] == found[1]
    assert len(found[0]) == 4
    assert found[0]["__other__"] > 3


async def test_several_meters_in_one_call(asked, tenant_a):
    response = await asked.http.get(
        "/v1/query",
        params={"tenant_id": str(tenant_a.id), "meter": ["volume", "requests"], **SPAN, "filter[method]": "GET"},
        headers=asked.operator,
    )
    document = response.json()
    assert {each["meter"]: each["items"][0]["value"] for each in document["meters"]} == {
        "volume": "12.5",
        "requests": "4",
    }
    assert document["watermark"] == response.headers["usage-watermark"]
    unknown = await asked.http.get(
        "/v1/query", params={"tenant_id": str(tenant_a.id), "meter": ["volume", "none"], **SPAN}, headers=asked.operator
    )
    assert unknown.status_code == 404


async def test_every_format_says_the_same(asked, tenant_a):
    parameters = {"tenant_id": str(tenant_a.id), "window": "hour", "group_by": "method", **SPAN}

    async def get(accept: str, path: str = "meters/volume/query", **more: Any):
        headers = {**asked.operator, "Accept": accept}
        response = await asked.http.get(f"/v1/{path}", params={**parameters, **more}, headers=headers)
        assert response.status_code == 200, response.text
        assert response.headers["content-type"].partition(";")[0] == accept.partition(",")[0]
        assert response.headers["usage-watermark"]
        return response

    items = (await get("application/json")).json()["items"]
    rows = [
        {
            "window_start": datetime.fromisoformat(item["window_start"]),
            "window_end": datetime.fromisoformat(item["window_end"]),
            "method": item["group"]["method"],
            "value": Decimal(item["value"]),
        }
        for item in items
    ]
    assert len(rows) == 3
    lines = (await get("text/csv")).text.split("\r\n")
    assert lines[0] == "window_start,window_end,method,value"
    assert [line.split(",")[3] for line in lines[1:-1]] == [item["value"] for item in items]
    stream = (await get("application/vnd.apache.arrow.stream")).content
    table = pa.ipc.open_stream(stream).read_all()
    assert table.to_pylist() == rows
    assert table.schema.metadata[b"watermark"]
    parquet = (await get("application/vnd.apache.parquet, application/json")).content
    assert pa.parquet.read_table(io.BytesIO(parquet)).to_pylist() == rows
    many = await get("application/vnd.apache.parquet", "query", meter=["volume", "requests"])
    found = pa.parquet.read_table(io.BytesIO(many.content)).to_pylist()
    assert [row for row in found if row.pop("meter") == "volume"] == rows


async def test_a_figure_as_it_was_known_leaves_out_what_came_later(asked, tenant_a):
    [row] = await asked.fetch("SELECT max(received_at) AS seen FROM pool.usage_event")
    before = (row["seen"] + timedelta(seconds=1)).isoformat()
    await eventually(lambda: _passed(row["seen"] + timedelta(seconds=1)), within=10)
    async with asked.metering():
        await asked.send(event(tenant_a, 99, time=START.isoformat(), data={"bytes": 1, "status": 200}))
        await eventually(asked.counted, within=60)
    then = await asked.query(tenant_a, "volume", received_before=before, **SPAN)
    now = await asked.query(tenant_a, "volume", **SPAN)
    assert [answer["items"][0]["value"] for answer in (then, now)] == ["119.5", "120.5"]
    assert len(await behind(asked, then["items"][0]["events"])) == 4


async def _passed(moment: datetime) -> bool:
    return datetime.now(UTC) > moment
