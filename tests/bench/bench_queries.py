"""`queries_*`: how long the answers about a month of a tenant with ten million events take, over HTTP.

SQL makes the events, and the rollups out of the events, group by group with the keys and values that the meter worker
gives them: what a query reads is the same as if the worker had counted them. `BENCH_QUERY_EVENTS` is how many.

Answers from rollups (whole hours, dimensions that are stored) have a goal of 50 ms at the 99th percentile. Those that
need more (edges within an hour, zones of quarter hours, exact unique counts over odd ranges, filters on what is not
stored) have one of two seconds.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from http import HTTPStatus
from uuid import UUID

import asyncpg
import httpx
import msgspec
from counting_rates import make_days
from report import Row, Servers, percentiles, row
from usage_stack import METER, UsageStack, usage_stack
from workload import Workload

from tenantry import TenantId, uuid7
from usage_service.domain.meters import NO_GROUP, Group
from usage_service.domain.rollups import value_hash

EVENTS = int(os.environ.get("BENCH_QUERY_EVENTS", "10000000"))
REQUESTS = int(os.environ.get("BENCH_QUERY_REQUESTS", "200"))
SLOW_REQUESTS = max(5, REQUESTS // 10)
FAST_GOAL, SLOW_GOAL = 0.05, 2.0

Asked = dict[str, str | list[str]]
_METHODS, _PATHS, _USERS = ("GET", "POST", "PATCH", "DELETE"), ("/a", "/b", "/c", "/d", "/e"), 1_000
_FIRST, _LAST = datetime(2026, 10, 1, tzinfo=UTC), datetime(2026, 11, 1, tzinfo=UTC)
_BY = {"method": "$.method", "path": "$.path"}
_METERS: Mapping[str, Mapping[str, object]] = {
    "calls": {"aggregation": "count", "group_by": _BY},
    "bytes": {"aggregation": "sum", "value": "$.bytes", "group_by": _BY},
    "level": {"aggregation": "latest", "value": "$.bytes", "group_by": _BY},
    "least": {"aggregation": "min", "value": "$.bytes", "group_by": _BY},
    "most": {"aggregation": "max", "value": "$.bytes", "group_by": _BY},
    "mean": {"aggregation": "avg", "value": "$.bytes", "group_by": _BY},
    "users": {"aggregation": "unique_count", "value": "$.user"},
}
_STORE = """
INSERT INTO pool.usage_event (tenant_id, identity, event_time, received_at, kafka_offset, digest, catalogue_version,
                              day, kafka_partition, source, event_id, type, data)
SELECT $1, gen_random_uuid(), at.time, at.time, number, number, 1, $2::date, 0, 'bench/api', number::text,
       'http.request', format('{"method":"%s","path":"%s","bytes":%s,"user":"u%s","status":%s}',
       ($3::text[])[1 + number % 4], ($4::text[])[1 + number / 4 % 5], number % 100000, number % $5::int,
       CASE WHEN number % 50 = 0 THEN 500 ELSE 200 END)
  FROM generate_series(0, $6::bigint - 1) AS number,
       LATERAL (SELECT $2::date::timestamp AT TIME ZONE 'UTC' + number * (interval '1 day' / $6::bigint) AS time) AS at
"""
_COUNT = """
CREATE TEMPORARY TABLE counted AS
SELECT date_trunc('hour', event_time, 'UTC') AS hour, data::jsonb ->> 'method' AS method,
       data::jsonb ->> 'path' AS path, count(*) AS count, sum((data::jsonb ->> 'bytes')::numeric) AS sum,
       min((data::jsonb ->> 'bytes')::numeric) AS minimum, max((data::jsonb ->> 'bytes')::numeric) AS maximum,
       max(event_time) AS time, max(kafka_offset) AS place
  FROM pool.usage_event WHERE tenant_id = $1 AND day = $2 GROUP BY 1, 2, 3
"""
_ROLLUPS = """
INSERT INTO pool.usage_rollup (tenant_id, meter_id, window_start, group_hash, version, count, groups, sum,
                               minimum, maximum, latest, latest_time, latest_received_at, latest_partition,
                               latest_offset)
SELECT $1, $2, hour, known.hash, 1, count, known.text, CASE WHEN $3 IN ('sum', 'avg') THEN sum END,
       CASE WHEN $3 IN ('min', 'max') THEN minimum END, CASE WHEN $3 IN ('min', 'max') THEN maximum END,
       CASE WHEN $3 = 'latest' THEN place % 100000 END, CASE WHEN $3 = 'latest' THEN time END,
       CASE WHEN $3 = 'latest' THEN time END, CASE WHEN $3 = 'latest' THEN 0 END,
       CASE WHEN $3 = 'latest' THEN place END
  FROM counted
  JOIN unnest($4::text[], $5::text[], $6::uuid[], $7::text[]) AS known (method, path, hash, text) USING (method, path)
 ORDER BY hour, known.hash
"""
_UNIQUE_ROLLUPS = """
INSERT INTO pool.usage_rollup (tenant_id, meter_id, window_start, group_hash, version, count, groups, uniques)
SELECT $1, $2, hour, $3, 1, sum(count)::bigint, $4, LEAST(sum(count)::bigint, $5::int) FROM counted GROUP BY hour
"""
# The numbers of events go round all users within an hour.
_UNIQUE_VALUES = """
INSERT INTO pool.usage_unique_value (tenant_id, meter_id, window_start, group_hash, value_hash)
SELECT $1, $2, hour, $3, value.hash
  FROM (SELECT DISTINCT hour FROM counted) AS hours, unnest($4::uuid[]) AS value (hash)
 ORDER BY 3, 5
"""
_MONTH: Asked = {"from": _FIRST.isoformat(), "to": _LAST.isoformat()}
_ODD: Asked = {"from": (_FIRST + timedelta(minutes=17)).isoformat(), "to": (_LAST - timedelta(minutes=23)).isoformat()}
_GROUPS: Asked = {"group_by": ["method", "path"]}
_QUESTIONS: Mapping[str, tuple[str, Asked, float]] = {
    "month": ("calls", _MONTH, FAST_GOAL),
    "days": ("calls", _MONTH | {"window": "day"}, FAST_GOAL),
    "hours": ("calls", _MONTH | {"window": "hour"}, FAST_GOAL),
    "days_of_groups": ("bytes", _MONTH | _GROUPS | {"window": "day"}, FAST_GOAL),
    "filtered_by_dimension": ("bytes", _MONTH | {"window": "day", "filter[path]": "/a"}, FAST_GOAL),
    "least_days": ("least", _MONTH | {"window": "day"}, FAST_GOAL),
    "most_of_groups": ("most", _MONTH | _GROUPS, FAST_GOAL),
    "mean_days_of_groups": ("mean", _MONTH | _GROUPS | {"window": "day"}, FAST_GOAL),
    "latest_of_groups": ("level", _MONTH | _GROUPS, FAST_GOAL),
    "latest_days_of_groups": ("level", _MONTH | _GROUPS | {"window": "day"}, FAST_GOAL),
    "uniques": ("users", _MONTH, SLOW_GOAL),
    "odd_range": ("bytes", _ODD | _GROUPS, SLOW_GOAL),
    "odd_uniques": ("users", _ODD, SLOW_GOAL),
    "quarter_hour_zone": ("calls", _MONTH | {"window": "day", "timezone": "Asia/Kathmandu"}, SLOW_GOAL),
    "filtered_off_dimensions": ("calls", _MONTH | {"filter[$.status][gte]": "500"}, SLOW_GOAL),
}


async def run(servers: Servers) -> list[Row]:
    async with usage_stack(servers) as stack:
        workload = Workload(tenants=1)
        await stack.publish_state(workload)
        [tenant_id] = workload.tenant_ids
        async with stack.connect() as connection:
            await _fill(connection, tenant_id)
        async with stack.role("usage-api"):
            await stack.ready()
            return [await _ask(stack, tenant_id, name, *question) for name, question in _QUESTIONS.items()]


async def _ask(stack: UsageStack, tenant_id: TenantId, name: str, meter: str, asked: Asked, goal: float) -> Row:
    headers = {"Authorization": f"Bearer {stack.secret}", "X-Tenant-ID": str(tenant_id)}
    seconds: list[float] = []
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{stack.port}", headers=headers, timeout=120) as client:
        for _ in range(REQUESTS if goal == FAST_GOAL else SLOW_REQUESTS):
            started = time.perf_counter()
            response = await client.get(f"/v1/meters/{meter}/query", params=asked)
            seconds.append(time.perf_counter() - started)
            if response.status_code != HTTPStatus.OK:  # such as 503, where the database has given up on a statement
                status, after = response.status_code, round(seconds[-1], 1)
                return row(f"queries_{name}", None, "ms", goal=goal * 1e3, status=status, after_seconds=after)
    found = percentiles(seconds)
    items = len(response.json()["items"])
    return row(
        f"queries_{name}", found["p99"] * 1e3, "ms", goal=goal * 1e3, p50=round(found["p50"] * 1e3, 1), items=items
    )


async def _fill(connection: asyncpg.Connection, tenant_id: TenantId) -> None:
    known = [(method, path, Group.of(("method", "path"), (method, path))) for method in _METHODS for path in _PATHS]
    groups = [
        [method for method, _, _ in known],
        [path for _, path, _ in known],
        [UUID(bytes=group.hash) for _, _, group in known],
        [group.text for _, _, group in known],
    ]
    users = [UUID(bytes=value_hash(f"u{number}")) for number in range(_USERS)]
    whole, days = UUID(bytes=NO_GROUP.hash), (_LAST - _FIRST).days
    meters = {slug: uuid7() for slug in _METERS}
    for slug, meter in _METERS.items():
        by = msgspec.json.encode(meter.get("group_by", {})).decode()
        values = ("http.request", meter["aggregation"], meter.get("value"), by, "request")
        await connection.execute(METER, meters[slug], slug, *values)
    await connection.execute("UPDATE system.meter_catalogue SET version = 1")
    for number in range(days):
        day: date = (_FIRST + timedelta(days=number)).date()
        await make_days(connection, {day})
        stored = (tenant_id, day, list(_METHODS), list(_PATHS), _USERS, EVENTS // days)
        await connection.execute(_STORE, *stored)
        await connection.execute(_COUNT, tenant_id, day)
        for slug in _METERS.keys() - {"users"}:
            await connection.execute(_ROLLUPS, tenant_id, meters[slug], _METERS[slug]["aggregation"], *groups)
        await connection.execute(_UNIQUE_ROLLUPS, tenant_id, meters["users"], whole, NO_GROUP.text, _USERS)
        await connection.execute(_UNIQUE_VALUES, tenant_id, meters["users"], whole, users)
        await connection.execute("DROP TABLE counted")
    await connection.execute("VACUUM ANALYZE pool.usage_event, pool.usage_rollup, pool.usage_unique_value")
    await connection.execute("INSERT INTO system.partition_progress VALUES (0, now())")
