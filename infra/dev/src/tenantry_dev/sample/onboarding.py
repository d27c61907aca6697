"""Makes everything the sample run needs, once: clock, tier, tenants, meters, plans, subscriptions, keys.

Each step finds what an earlier run, or a killed one, has made: by the slug, by the record, or by its Idempotency-Key.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from tenantry_dev.sample.api import Api, ApiError, Apis, SampleError
from tenantry_dev.sample.catalogue import (
    CURRENCY,
    METERS,
    PLAN_OF_KIND,
    PLANS,
    TIER,
    TIER_DOCUMENT,
    tenant_isolation,
    tenant_slug,
)
from tenantry_dev.sample.record import Record
from tenantry_dev.sample.traces import TENANTS, Trace

_PROVISIONING_SECONDS = 120.0
# How long a service may take to hear of a tenant that is active.
_NEWS_SECONDS = 30.0
_CONFLICT = 409


@dataclass(frozen=True)
class SampleTenant:
    number: int
    slug: str
    id: str
    isolation: str
    api_key: str


class OnboardingError(SampleError):
    """A tenant could not be provisioned; the text carries the reason that the tenant service gives."""


async def make_clock(tenant_api: Api, record: Record, start: datetime) -> str:
    """Id of the test clock that all sample tenants share; it shows `start` when it is new."""
    known = record.get("clock")
    if known is None:
        clock = await tenant_api.post("/v1/test-clocks", {"now": _text(start)}, key="sample-clock")
        known = clock["id"]
        record.put(known, "clock")
    return str(known)


async def advance_clock(tenant_api: Api, clock: str, to: datetime) -> datetime:
    """Moves the clock forward to `to`, or leaves it where it is already later, and waits until all services follow.

    Returns what it shows.
    """
    shown = await tenant_api.until(f"/v1/test-clocks/{clock}", _is_ready, within=_PROVISIONING_SECONDS)
    if datetime.fromisoformat(shown["now"]) < to:
        await tenant_api.post(f"/v1/test-clocks/{clock}/advance", {"to": _text(to)})
        shown = await tenant_api.until(f"/v1/test-clocks/{clock}", _is_ready, within=_PROVISIONING_SECONDS)
    return datetime.fromisoformat(shown["now"])


async def onboard(apis: Apis, record: Record, clock: str) -> list[SampleTenant]:
    """The twelve tenants, active and known to every service, with an API key each."""
    await apis.tenant.put(f"/v1/tiers/{TIER}", TIER_DOCUMENT)
    tenants = await asyncio.gather(*(_tenant(apis.tenant, number, clock) for number in range(TENANTS)))
    for tenant in tenants:
        await _active(apis.tenant, tenant)
    await asyncio.gather(*(apis.usage.put(f"/v1/meters/{slug}", meter) for slug, meter in METERS.items()))
    await asyncio.gather(*(apis.billing.put(f"/v1/plans/{code}", plan) for code, plan in PLANS.items()))
    made = []
    for number, tenant in enumerate(tenants):
        await apis.usage.until(
            "/v1/meters/http-requests/query",
            lambda _: True,
            within=_NEWS_SECONDS,
            tenant_id=tenant["id"],
            **{"from": "2000-01-01T00:00:00Z", "to": "2000-01-02T00:00:00Z", "window": "day"},
        )
        slug = tenant_slug(number)
        key = record.get("keys", slug) or await _new_key(apis.tenant, tenant["id"])
        record.put(key, "keys", slug)
        made.append(SampleTenant(number, slug, tenant["id"], tenant_isolation(number), key))
    return made


async def subscribe(billing: Api, record: Record, tenants: Iterable[SampleTenant], trace: Trace) -> None:
    """A subscription for every tenant to the plan of the trace, from the first of the month of its first event."""
    start = trace.first.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    plan = PLAN_OF_KIND[trace.kind]
    for tenant in tenants:
        if record.get("subscriptions", tenant.slug, plan) is not None:
            continue
        document = {"tenant_id": tenant.id, "plan": plan, "currency": CURRENCY, "start_at": _text(start)}
        subscription = await _when_known(billing, "/v1/subscriptions", document, key=f"{tenant.slug}-{plan}")
        record.put(subscription["id"], "subscriptions", tenant.slug, plan)


async def _tenant(tenant_api: Api, number: int, clock: str) -> Any:
    slug = tenant_slug(number)
    document = {
        "slug": slug,
        "name": f"Sample {number:02}",
        "tier": TIER,
        "isolation": tenant_isolation(number),
        "admin_email": f"{slug}@example.com",
        "test_clock": clock,
    }
    try:
        return await tenant_api.post("/v1/tenants", document, key=slug)
    except ApiError as error:
        if error.status != _CONFLICT:
            raise
    # The key is forgotten after a day; the slug is not.
    async for tenant in tenant_api.items("/v1/tenants", q=slug):
        if tenant["slug"] == slug:
            return tenant
    raise OnboardingError(f"{slug} exists and is not listed")


async def _active(tenant_api: Api, tenant: Any) -> None:
    settled = {"active", "provisioning_failed", "cancelled"}
    shown = await tenant_api.until(
        f"/v1/tenants/{tenant['id']}", lambda now: now["status"] in settled, within=_PROVISIONING_SECONDS
    )
    if shown["status"] != "active":
        runs = await tenant_api.get(f"/v1/tenants/{tenant['id']}/runs")
        raise OnboardingError(f"{tenant['slug']} is {shown['status']}: {runs}")


async def _new_key(tenant_api: Api, tenant_id: str) -> str:
    document = {"name": "sample traffic", "scopes": ["tenant:write", "tenant:read"]}
    answer = await tenant_api.post(f"/v1/tenants/{tenant_id}/api-keys", document)
    return str(answer["key"])


async def _when_known(api: Api, path: str, document: Any, *, key: str) -> Any:
    """Posts, and again for a while where the service has not heard of the tenant yet."""
    for attempt in range(int(_NEWS_SECONDS * 5)):
        try:
            return await api.post(path, document, key=key)
        except ApiError as error:
            if error.status != 404 or attempt == int(_NEWS_SECONDS * 5) - 1:
                raise
            await asyncio.sleep(0.2)
    raise AssertionError  # the last attempt returned or raised


def _is_ready(clock: Any) -> bool:
    return bool(clock["status"] == "ready")


def _text(moment: datetime) -> str:
    return moment.isoformat().replace("+00:00", "Z")


def month_end(moment: datetime) -> datetime:
    """The first instant of the month after."""
    first = moment.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    return (first + timedelta(days=32)).replace(day=1)
