"""A tenant uses its plan's quota up through the product, is refused, buys more, and goes on."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from tenantry_dev.sample.api import Api, ApiError, Apis

WITHIN_SECONDS = 60
TIER: dict[str, Any] = {
    "entitlements": {"documents": {"limit": "1"}, "search": True, "exports": {"forbid": True}},
}
PLAN: dict[str, Any] = {
    "currencies": ["USD"],
    "charges": [{"code": "base", "price": {"model": "flat", "amount": "1.00"}}],
    "entitlements": {"documents": {"limit": "3", "alerts": ["1"]}, "exports": True},
}


@pytest.fixture
async def tenant(operator: Apis) -> str:
    """The id of a tenant on a tier and a plan that both say what it may use."""
    await operator.tenant.put("/v1/tiers/limited", TIER)
    meter = {"event_type": "document.created", "aggregation": "count", "unit": "document"}
    await operator.usage.put("/v1/meters/documents", meter)
    await operator.billing.put("/v1/plans/limited", PLAN)
    made = {"slug": "limited", "name": "Limited", "tier": "limited", "admin_email": "admin@limited.example"}
    tenant: str = (await operator.tenant.post("/v1/tenants", made, key="limited"))["id"]
    await until(lambda: operator.tenant.get(f"/v1/tenants/{tenant}"), lambda found: found["status"] == "active")
    subscription = {"tenant_id": tenant, "plan": "limited"}
    await until(lambda: operator.billing.post("/v1/subscriptions", subscription, key="limited"), bool)
    return tenant


async def until(ask: Any, holds: Any) -> Any:
    """The first answer that holds; a refusal is not one."""
    deadline = time.monotonic() + WITHIN_SECONDS
    while True:
        try:
            answer = await ask()
            if holds(answer):
                return answer
        except ApiError as refused:
            answer = refused
        assert time.monotonic() < deadline, answer
        await asyncio.sleep(0.1)


async def refusal(product: Api, method: str, path: str, **options: Any) -> ApiError:
    with pytest.raises(ApiError) as refused:
        await product.call(method, path, **options)
    return refused.value


async def test_a_hard_quota_of_a_plan_refuses_until_more_is_granted(sender: Apis, operator: Apis, tenant: str) -> None:
    own = {"headers": {"X-Tenant-ID": tenant}}
    entitlement = f"/v1/tenants/{tenant}/entitlements/documents"
    known = await until(lambda: operator.usage.get(entitlement), lambda found: found["source"] == "plan")
    assert (known["limit"], known["balance"], known["has_access"]) == ("3", "3", True)

    async def create() -> Any:
        return await sender.app.call("POST", "/v1/documents", json={"title": "one of few"}, **own)

    # The product hears of the plan by itself; until then it knows the tier, which gives one.
    created = [await create()]
    while len(created) < 3:
        created.append(await until(create, bool))
    refused = await refusal(sender.app, "POST", "/v1/documents", json={"title": "one too many"}, **own)
    assert (refused.status, refused.problem["type"]) == (402, "quota-exceeded")
    assert (refused.problem["feature"], refused.problem["limit"]) == ("documents", "3")

    used = await until(lambda: operator.usage.get(entitlement), lambda found: found["usage"] == "3")
    assert (used["balance"], used["has_access"]) == ("0", False)
    await operator.usage.post(f"{entitlement}/grants", {"amount": "2"}, key="top-up")
    await until(create, bool)
    topped_up = await until(lambda: operator.usage.get(entitlement), lambda found: found["usage"] == "4")
    assert (topped_up["limit"], topped_up["balance"]) == ("5", "1")

    assert (await sender.app.call("GET", "/v1/search?q=few", **own))["items"]
    forbidden = await refusal(sender.app, "POST", "/v1/exports", **own)
    assert (forbidden.status, forbidden.problem["type"]) == (403, "entitlement-missing")
    listed = (await operator.usage.get(f"/v1/tenants/{tenant}/entitlements"))["items"]
    assert {each["feature"]: (each["source"], each["has_access"]) for each in listed} == {
        "documents": ("plan", True),
        "exports": ("tier", False),
        "search": ("tier", True),
    }
