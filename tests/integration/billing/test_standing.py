"""What is said of a tenant's plans on `billing.state.v1`."""

import json
from typing import Any

import pytest
from pydantic import ValidationError

from billing_service.subscriptions.service import cancel
from tenantry import Tenant
from tenantry.entitlements import BillingState, parse_entitlements

from .support import APRIL, MARCH, MAY, PLAN, Billing

ENTITLEMENTS = {"sso": True, "seats": 25, "documents": {"limit": "1000", "alerts": ["0.8"], "anniversary": True}}


async def said(billing: Billing) -> list[dict[str, Any]]:
    rows = await billing.rows("SELECT payload FROM system.outbox WHERE topic = 'billing.state.v1' ORDER BY version")
    return [json.loads(payload) for (payload,) in rows]


async def test_every_subscription_is_said_with_what_it_gives_and_until_when(billing: Billing, tenant_a: Tenant) -> None:
    await billing.put_plan({**PLAN, "entitlements": ENTITLEMENTS}, code="small")
    await billing.put_plan({**PLAN, "entitlements": {"seats": 50}}, code="large")
    small = await billing.subscribe(tenant_a, plan_code="small", start_at=MARCH)
    await billing.subscribe(tenant_a, plan_code="large", start_at=APRIL, ends_at=MAY)
    async with billing.databases.system_session() as session:
        await cancel(session, small.id, APRIL)
    first, second, third = await said(billing)
    assert [document["version"] for document in (first, second, third)] == [1, 2, 3]
    assert (first["plan"], first["entitlements"], first["standing"]) == ("small", ENTITLEMENTS, "good")
    assert second["plan"] == third["plan"] == "large"
    state = BillingState(**{key: third[key] for key in ("tenant_id", "plan", "plan_version", "entitlements")})
    assert state.held[0].plan == "large"
    held = [(each["plan"], each["entitlements"], each["ends_at"]) for each in third["subscriptions"]]
    assert [(plan, given) for plan, given, _ in held] == [("small", ENTITLEMENTS), ("large", {"seats": 50})]
    assert [ends is None for _, _, ends in held] == [False, False]
    assert [each["ends_at"] is None for each in first["subscriptions"]] == [True]
    assert parse_entitlements(held[0][1], of="plan").keys() == ENTITLEMENTS.keys()


@pytest.mark.parametrize(
    "wrong", [{"a": None}, {"a": 1.5}, {"A": True}, {"a": {"limit": "-1"}}, {"a": {"forbid": True}}]
)
async def test_plans_that_entitle_to_what_cannot_be(billing: Billing, wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="entitlements"):
        await billing.put_plan({**PLAN, "entitlements": wrong})
