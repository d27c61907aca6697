import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any
from uuid import uuid4

import httpx
import pytest
from billing_installation import Installation, settled

from billing_service.app import create_app
from tenantry import Tenant
from tenantry.events import Request
from tenantry.identity import SESSION_COOKIE
from tenantry.testing import eventually

from .support import APRIL, MARCH, MAY, PLAN, Billing, at, rollup


@asynccontextmanager
async def serving(installation: Installation) -> AsyncIterator[httpx.AsyncClient]:
    """The application in this process, without a worker."""
    runtime = installation.runtime()
    app = create_app(runtime)
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://billing.test") as client,
    ):
        await settled(runtime)
        yield client


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


@pytest.fixture
async def operator(installation: Installation, tenant_a: Tenant, tenant_b: Tenant) -> dict[str, str]:
    await installation.publish_tenants(tenant_a, tenant_b)
    return bearer(await installation.api_key("platform"))


async def test_plans_are_immutable_versions(installation: Installation, operator: dict[str, str]) -> None:
    async with serving(installation) as client:
        first = await client.put("/v1/plans/pro", json=PLAN, headers=operator)
        assert (first.status_code, first.json()["version"], first.headers["etag"]) == (201, 1, '"1"')
        again = await client.put("/v1/plans/pro", json=PLAN, headers=operator)
        assert (again.status_code, again.json()) == (200, first.json())
        changed = await client.put("/v1/plans/pro", json=PLAN | {"zero_invoices": "skip"}, headers=operator)
        assert (changed.status_code, changed.json()["version"]) == (201, 2)
        assert (await client.get("/v1/plans/pro?version=1", headers=operator)).json() == first.json()
        for text in ("a\x00b", "\ud800"):
            body = json.dumps(PLAN | {"name": text})
            refused = await client.put("/v1/plans/pro", content=body, headers=operator)
            assert 400 <= refused.status_code < 500
        stale = await client.put("/v1/plans/pro", json=PLAN, headers=operator | {"If-Match": '"1"'})
        assert (stale.status_code, stale.json()["type"]) == (412, "stale-version")
        listed = await client.get("/v1/plans", headers=operator)
        assert [(plan["code"], plan["version"]) for plan in listed.json()["items"]] == [("pro", 2)]
        races = await asyncio.gather(
            *(client.put("/v1/plans/raced", json=PLAN | {"name": f"n{n % 2}"}, headers=operator) for n in range(6))
        )
        versions = {race.json()["version"]: race.json()["name"] for race in races}
        assert sorted(versions) == list(range(1, len(versions) + 1))


@pytest.mark.parametrize(
    ("price", "quantity", "amount", "lines"),
    [
        ({"model": "flat", "amount": "20.00"}, "0", "20.00", ["20.00"]),
        ({"model": "per_unit", "unit_amount": "0.0125"}, "101", "1.26", ["1.26"]),
        (
            {
                "model": "graduated",
                "tiers": [{"up_to": "100", "unit_amount": "1.00"}, {"up_to": None, "unit_amount": "0.50"}],
            },
            "300",
            "200.00",
            ["100.00", "100.00"],
        ),
    ],
)
async def test_price_previews(
    installation: Installation, operator: dict[str, str], price: dict[str, Any], quantity: str, amount: str, lines: Any
) -> None:
    async with serving(installation) as client:
        body = {"currency": "USD", "price": price, "quantity": quantity}
        answer = await client.post("/v1/prices/preview", json=body, headers=operator)
        assert answer.status_code == 200, answer.text
        assert answer.json()["amount"] == amount
        assert [line["amount"] for line in answer.json()["lines"]] == lines
        floats = await client.post("/v1/prices/preview", json=body | {"quantity": 1.5}, headers=operator)
        unknown = await client.post("/v1/prices/preview", json=body | {"currency": "XXX"}, headers=operator)
        for refused in (floats, unknown):
            assert refused.status_code == 422
            assert refused.headers["content-type"] == "application/problem+json"


async def test_subscriptions(installation: Installation, operator: dict[str, str], tenant_a: Tenant) -> None:
    async with serving(installation) as client:
        await client.put("/v1/plans/pro", json=PLAN, headers=operator)
        body = {"tenant_id": str(tenant_a.id), "plan": "pro", "start_at": MARCH.isoformat()}
        keyed = operator | {"Idempotency-Key": "once"}
        first = await client.post("/v1/subscriptions", json=body, headers=keyed)
        assert first.status_code == 201, first.text
        assert first.json()["plan_version"] == 1
        assert (await client.post("/v1/subscriptions", json=body, headers=keyed)).json() == first.json()
        other = await client.post("/v1/subscriptions", json=body | {"currency": "USD"}, headers=keyed)
        assert (other.status_code, other.json()["type"]) == (409, "idempotency-conflict")
        listed = await client.get(f"/v1/subscriptions?tenant_id={tenant_a.id}", headers=operator)
        assert [each["id"] for each in listed.json()["items"]] == [first.json()["id"]]

        async def status(**changes: Any) -> int:
            return (await client.post("/v1/subscriptions", json=body | changes, headers=operator)).status_code

        assert await status(tenant_id=str(uuid4())) == 404
        assert await status(plan="none") == 404
        assert await status(plan="pro@7") == 404
        assert await status(currency="EUR") == 422
        assert await status(time_zone="Mars/Olympus") == 422
        assert await status(time_zone="Asia/Kolkata") == 422
        assert await status(quantities={"seats": "1"}) == 422
        assert await status(ends_at=MARCH.isoformat()) == 422
        assert await status(start_at="2026-03-01T00:00:00") == 422
        assert await status(surprise=1) == 422
        assert await status(start_at="0001-01-01T00:00:00Z") == 422
        assert await status(ends_at="9999-12-31T23:59:59-10:00") == 422
        assert await status(account="a\x00b") == 422
        assert await status(tenant_id="a\x00b") == 404

        url = f"/v1/subscriptions/{first.json()['id']}/cancel"
        ended = await client.post(url, json={"at": APRIL.isoformat()}, headers=operator)
        assert datetime.fromisoformat(ended.json()["ends_at"]) == APRIL
        later = await client.post(url, json={"at": "2027-01-01T00:00:00Z"}, headers=operator)
        assert later.status_code == 409


async def test_a_tenant_sees_its_own_invoices_only(
    installation: Installation, billing: Billing, operator: dict[str, str], tenant_a: Tenant, tenant_b: Tenant
) -> None:
    await billing.put_plan()
    for tenant in (tenant_a, tenant_b):
        await billing.subscribe(tenant)
        await billing.feed(rollup(tenant.id, "requests", MARCH, 1, 8))
    await billing.run(APRIL)
    key_a = bearer(await installation.api_key("tenant:read", tenant=tenant_a))
    writer = bearer(await installation.api_key("tenant:admin", tenant=tenant_a))
    async with serving(installation) as client:
        everything = (await client.get("/v1/invoices", headers=operator)).json()["items"]
        assert {each["tenant_id"] for each in everything} == {str(tenant_a.id), str(tenant_b.id)}
        selected = (await client.get(f"/v1/invoices?tenant_id={tenant_b.id}", headers=operator)).json()["items"]
        assert {each["tenant_id"] for each in selected} == {str(tenant_b.id)}
        own = (await client.get("/v1/invoices", headers=key_a)).json()["items"]
        assert {each["tenant_id"] for each in own} == {str(tenant_a.id)}

        document = (await client.get(f"/v1/invoices/{own[0]['id']}", headers=key_a)).json()
        assert document["number"].startswith("INV-0000")
        assert (document["total"], document["amount_due"], document["status"]) == ("20.10", "20.10", "final")
        assert document["period"] == {"from": "2026-03-01T00:00:00Z", "to": "2026-04-01T00:00:00Z"}
        line = document["lines"][1]
        assert (line["charge"], line["quantity"], line["unit_amount"]) == ("requests", "8", "0.0125")
        assert (line["exact_amount"], line["amount"], line["formula"]) == ("0.1", "0.10", "8 * 0.0125")
        assert (line["catalogue_version"], line["usage"]["events"], line["usage"]["rollups"]) == ("standard@1", "8", 1)

        foreign = await client.get(f"/v1/invoices/{selected[0]['id']}", headers=key_a)
        unknown = await client.get(f"/v1/invoices/{uuid4()}", headers=key_a)
        for answer in (foreign, unknown):
            assert answer.status_code == 404
        assert foreign.json() | {"instance": ""} == unknown.json() | {"instance": ""}
        mismatch = await client.get(f"/v1/invoices?tenant_id={tenant_b.id}", headers=key_a)
        assert (mismatch.status_code, mismatch.json()["type"]) == (403, "tenant-mismatch")
        assert (await client.get("/v1/invoices")).status_code == 401
        for method, path in (
            ("PUT", "/v1/plans/pro"),
            ("GET", "/v1/plans"),
            ("POST", "/v1/subscriptions"),
            ("POST", "/v1/invoice-runs"),
            ("GET", f"/v1/invoice-runs/{uuid4()}"),
            ("GET", "/console"),
            ("GET", "/console/stream"),
        ):
            refused = await client.request(method, path, headers=writer, json={})
            assert refused.status_code == 403, (method, path, refused.text)


async def test_a_clock_is_advanced_once_its_tenants_are_known_there(
    installation: Installation, tenant_a: Tenant
) -> None:
    before, after = at(tenant_a, APRIL), at(at(tenant_a, APRIL), MAY)
    await installation.publish_tenants(before)
    runtime = installation.runtime()
    async with runtime.tenancy.run():
        await settled(runtime)
        assert before.clock is not None
        data = {"clock_id": str(before.clock.id), "to": MAY.isoformat()}
        request = Request(request_id=uuid4(), kind="clock.advance", services=("billing",), data=data)
        answering = asyncio.create_task(runtime.clock_advanced(request))
        await runtime.freshen()
        assert not answering.done()
        await installation.publish_tenants(after)
        await asyncio.wait_for(answering, 30)


async def test_runs_over_http(
    installation: Installation, operator: dict[str, str], tenant_a: Tenant, billing: Billing
) -> None:
    async with serving(installation) as client:
        created = await client.post("/v1/invoice-runs", json={"as_of": APRIL.isoformat()}, headers=operator)
        assert (created.status_code, created.json()["state"]) == (202, "requested")
        assert (await client.get(created.headers["location"], headers=operator)).json()["id"] == created.json()["id"]
        bad: list[dict[str, Any]] = [
            {},
            {"as_of": "2026-04-01"},
            {"as_of": APRIL.isoformat(), "x": 1},
            {"as_of": "x"},
            {"as_of": "9999-12-31T23:59:59-10:00"},
        ]
        for body in bad:
            assert (await client.post("/v1/invoice-runs", json=body, headers=operator)).status_code == 422
        unknown = {"as_of": APRIL.isoformat(), "tenants": [str(uuid4())]}
        assert (await client.post("/v1/invoice-runs", json=unknown, headers=operator)).status_code == 404
        await billing.finish_runs()
        done = (await client.get(created.headers["location"], headers=operator)).json()
        assert (done["state"], done["periods"], done["error"]) == ("done", 0, None)


async def test_the_console_asks_to_sign_in_and_forbids_everything_foreign(
    installation: Installation, operator: dict[str, str], tenant_a: Tenant, billing: Billing
) -> None:
    await billing.put_plan()
    await billing.subscribe(tenant_a)
    await billing.run(APRIL)
    session_id, secret = await installation.session("platform")
    cookie = {"Cookie": f"{SESSION_COOKIE}={secret}"}
    async with serving(installation) as client:
        anonymous = await client.get("/console")
        assert anonymous.status_code == 303
        assert anonymous.headers["location"] == ("http://tenant.test/signin?next=http%3A%2F%2Fbilling.test%2Fconsole")

        async def shown() -> bool:
            return "INV-000001" in (await client.get("/console", headers=cookie)).text

        await eventually(shown, within=60)
        page = await client.get("/console", headers=cookie)
        assert "Tenant 1" in page.text or tenant_a.name in page.text
        policy = page.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert " style=" not in page.text
        assert "<script>" not in page.text
        for name in ("console.css", "console.js", "icon.svg"):
            assert (await client.get(f"/console/static/{name}")).status_code == 200
        await installation.end_session(session_id)

        async def signed_out() -> bool:
            return (await client.get("/console", headers=cookie)).status_code == 303

        await eventually(signed_out)


async def test_an_invoice_is_verified_over_http(
    installation: Installation, operator: dict[str, str], tenant_a: Tenant, tenant_b: Tenant
) -> None:
    async with installation.database.databases(follow_placement=False) as databases:
        billing = Billing(databases)
        await billing.put_plan({"currencies": ["USD"], "charges": [PLAN["charges"][0]]}, "flat")
        await billing.put_plan()
        await billing.subscribe(tenant_a, plan_code="flat")
        await billing.subscribe(tenant_b)
        await billing.run(APRIL)
        found = await billing.rows("SELECT tenant_id, id FROM invoice_final")
    invoices = dict(found)
    reader = bearer(await installation.api_key("tenant:read", tenant=tenant_a))
    async with serving(installation) as client:
        answer = await client.get(f"/v1/invoices/{invoices[tenant_a.id]}/verify", headers=reader)
        assert (answer.status_code, answer.json()["result"], answer.json()["recomputed_total"]) == (
            200,
            "equal",
            "20.00",
        )
        foreign = await client.get(f"/v1/invoices/{invoices[tenant_b.id]}/verify", headers=reader)
        assert foreign.status_code == 404
        # Whose usage has to be asked for cannot be verified where nothing says who has it.
        metered = await client.get(f"/v1/invoices/{invoices[tenant_b.id]}/verify", headers=operator)
        assert (metered.status_code, metered.json()["type"]) == (503, "unavailable")
