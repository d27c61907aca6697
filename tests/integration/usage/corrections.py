"""Corrections over HTTP, and the figures that follow."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

AGGREGATIONS = ("count", "sum", "min", "max", "avg", "latest", "unique_count", "time_weighted")


async def correct(usage, *asked: dict[str, Any], headers=None, **params: str):
    content = json.dumps(asked[0] if len(asked) == 1 else asked)
    headers = {"Content-Type": "application/json", **(headers or usage.service)}
    return await usage.http.post("/v1/events/correct", content=content, headers=headers, params=params)


def cancels(tenant, number: int, replacement: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    named = {"source": "tests", "id": f"e-{number}", "subject": str(tenant.id), **more}
    return {"cancels": named, **({} if replacement is None else {"replacement": replacement})}


async def listed(usage, tenant, **params: str) -> list[dict[str, Any]]:
    answer = await usage.http.get("/v1/corrections", params=params, headers=usage.tenant_key(tenant))
    assert answer.status_code == 200, answer.text
    return answer.json()["items"]


async def figures(usage, tenant, slug: str, **params: str) -> list[tuple[str, str | None]]:
    now = datetime.now(UTC)
    span = {"from": (now - timedelta(days=2)).isoformat(), "to": (now + timedelta(hours=1)).isoformat()}
    answer = await usage.query(tenant, slug, **{"window": "day", **span, **params})
    return [(item["window_start"], item["value"]) for item in answer["items"]]


async def total(usage, tenant, slug: str) -> str | None:
    [(_, value)] = await figures(usage, tenant, slug, window="none")
    return value
