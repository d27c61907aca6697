"""Invoices held against raw events: usage counts them, billing bills the rollups, and `verify` asks for the events."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from uuid import UUID

import httpx
import pytest
from broker import read_topic
from issuer import Issuer
from processes import free_port, is_ready
from sqlalchemy import text
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Mount, Route
from tests.integration.usage.support import ISSUER, NUMBERS, Usage, event, open_usage, running

from billing_service.app import create_app
from billing_service.domain.verification import Verdict
from billing_service.invoicing.evidence import UsageEvidence
from billing_service.invoicing.repository import find, page
from billing_service.invoicing.verifying import Verified, verify
from billing_service.runtime import Runtime
from billing_service.settings import BillingSettings
from billing_service.usage.repository import cut_is_complete
from tenantry import Tenancy, TenancySettings, Tenant, Tier
from tenantry.cli import serve_http
from tenantry.database import Databases
from tenantry.events import KafkaSettings
from tenantry.identity import Scope
from tenantry.testing import GivenState, ServiceDatabase, TenantFactory, eventually

from .support import Billing

DAY = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(days=4)
NEXT = DAY + timedelta(days=1)
PLAN = {
    "currencies": ["USD"],
    "interval": "day",
    "charges": [
        {"code": "base", "price": {"model": "flat", "amount": "2.00"}},
        {"code": "calls", "meter": "calls", "price": {"model": "per_unit", "unit_amount": "0.0125"}},
        {"code": "bytes", "meter": "bytes", "price": {"model": "per_unit", "unit_amount": "0.01", "minimum": "0.38"}},
    ],
}


@dataclass
class Both(Billing):
    """Billing that reads what a usage service publishes, and asks it for cuts."""

    usage: Usage = field(kw_only=True)
    _read: dict[int, int] = field(default_factory=dict)

    async def request_cut(self) -> UUID:
        response = await self.usage.http.post("/v1/cuts", json={}, headers=self.usage.service)
        cut_id = UUID(response.json()["id"])

        async def read() -> bool:
            await self._follow()
            async with self.databases.system_session() as session:
                return await cut_is_complete(session, cut_id)

        await eventually(read, within=60)
        return cut_id

    async def _follow(self) -> None:
        records = await read_topic(self.usage.kafka, "usage.rollups.v1")
        new = [record for record in records if record.offset >= self._read.get(record.partition, 0)]
        async with self.databases.system.begin() as connection:
            await self.consumer.handle(connection, new)
        self._read |= {record.partition: record.offset + 1 for record in new}

    async def invoice(self, tenant: Tenant, start: datetime = DAY) -> UUID:
        async with self.databases.system_session() as session:
            return next(each.id for each in await page(session, tenant.id, None, 10) if each.period_from == start)

    async def verify(self, invoice_id: UUID, *, erased: bool = False) -> Verified:
        usage = self.usage
        client = partial(
            httpx.AsyncClient, transport=usage.transport, base_url="http://usage.test", headers=usage.service
        )
        async with self.databases.system_session() as session:
            invoice = await find(session, invoice_id)
            assert invoice is not None
            return await verify(session, invoice, UsageEvidence(client), erased=erased)


@pytest.fixture
async def both(
    service_database: Callable[[str], ServiceDatabase],
    kafka_bootstrap: str,
    kafka_prefix: str,
    tenant_a: Tenant,
) -> AsyncIterator[Both]:
    """A tenant on a daily plan whose meters the usage service counts, and a billed day of four events of ten bytes."""
    databases = [service_database(name) for name in ("usage", "billing")]
    for database in databases:
        await database.truncate()
    async with databases[1].connect() as connection:
        await connection.execute("INSERT INTO system.seller VALUES ('default', '', 'INV-', 1)")
    usage = await open_usage(databases[0], kafka_bootstrap, f"{kafka_prefix}{next(NUMBERS)}.")
    usage.state.directory.upsert_tier(Tier(name="standard", version=1))
    usage.state.directory.upsert(tenant_a)
    async with (
        usage.running(),
        databases[1].databases(follow_placement=False) as billing_databases,
        usage.metering(members=1),
        usage.relaying(),
    ):
        billing = Both(billing_databases, usage=usage)
        await usage.put_meter("calls", {"event_type": "http.request", "aggregation": "count"})
        await usage.put_meter("bytes", {"event_type": "http.request", "aggregation": "sum", "value": "$.bytes"})
        await usage.send(*(sent(tenant_a, n) for n in range(4)))
        await eventually(usage.counted, within=60)
        await billing.put_plan(PLAN)
        await billing.subscribe(tenant_a, start_at=DAY)
        await billing.run(NEXT)
        yield billing


def sent(tenant: Tenant, number: int, size: int = 10) -> dict[str, object]:
    return event(tenant, number, time=DAY.isoformat(), data={"bytes": size})


async def correct(usage: Usage, tenant: Tenant, number: int) -> UUID:
    cancels = {"source": sent(tenant, number)["source"], "id": sent(tenant, number)["id"], "subject": str(tenant.id)}
    response = await usage.http.post("/v1/events/correct", json={"cancels": cancels}, headers=usage.service)
    assert response.status_code == 202, response.text
    return UUID(response.json()["ids"][0])


def told(verified: Verified) -> dict[tuple[str, str], Verdict]:
    return {(each.line.charge, each.line.kind): each.verdict for each in verified.lines}


async def test_an_invoice_equals_its_raw_events(both: Both, tenant_a: Tenant) -> None:
    verified = await both.verify(await both.invoice(tenant_a))
    assert (verified.verdict, str(verified.total)) == (Verdict.EQUAL, "2.45")  # 2.00 + 4 * 0.0125 + 40 * 0.01
    assert set(told(verified).values()) == {Verdict.EQUAL}
    assert [None if each.evidence is None else str(each.evidence.at_cut.quantity) for each in verified.lines] == [
        None,
        "4",
        "40",
    ]


async def test_a_correction_and_late_usage_are_told_from_what_is_wrong(both: Both, tenant_a: Tenant) -> None:
    usage = both.usage
    correction = await correct(usage, tenant_a, 1)
    await usage.send(sent(tenant_a, 9, size=5))
    await eventually(usage.counted, within=60)
    first = await both.invoice(tenant_a)
    verified = await both.verify(first)
    assert verified.verdict is Verdict.CHANGED_SINCE
    calls, size = verified.lines[1:]
    # One event was taken back and one came late: there are four still, but not of the same bytes.
    assert (calls.verdict, size.verdict, str(size.unbilled)) == (Verdict.EQUAL, Verdict.CHANGED_SINCE, "-5")
    assert size.evidence is not None
    assert [UUID(each["id"]) for each in size.evidence.corrections] == [correction]
    # The next invoice adjusts it: from 0.40 to 0.35, and the minimum of 0.38 takes up 0.03 of it.
    await both.run(NEXT + timedelta(days=1))
    assert str((await both.totals())[tenant_a.id, NEXT]) == "2.36"  # 2.00 + 0.38 - 0.05 + 0.03
    size = (await both.verify(first)).lines[2]
    assert (size.verdict, str(size.unbilled)) == (Verdict.CHANGED_SINCE, "0")
    assert [(each.number, str(each.amount)) for each in size.adjusted_by] == [("INV-000002", "-0.05")]
    second = await both.verify(await both.invoice(tenant_a, NEXT))
    assert second.verdict is Verdict.EQUAL
    adjusting = [each for each in second.lines if each.line.period_from == DAY]
    assert [(each.line.charge, each.line.kind, str(each.amount)) for each in adjusting] == [
        ("bytes", "charge", "-0.05"),
        ("bytes", "minimum", "0.03"),
    ]


async def test_an_event_that_waited_for_its_tenant_while_the_cut_was_made_is_in_both(
    both: Both, tenant_factory: TenantFactory
) -> None:
    usage, late = both.usage, tenant_factory()
    await usage.produce([json.dumps(sent(late, 1)).encode()], [late.id])
    await eventually(lambda: usage.fetch("SELECT FROM system.parked_record"), within=60)
    await both.subscribe(late, start_at=DAY)
    billing = asyncio.create_task(both.run(NEXT))
    await eventually(lambda: usage.fetch("SELECT FROM system.cut WHERE state = 'waiting'"), within=60)
    usage.state.directory.upsert(late)
    await billing
    verified = await both.verify(await both.invoice(late))
    assert (verified.verdict, str(verified.total)) == (Verdict.EQUAL, "2.39")  # 2.00 + 0.0125 + the minimum of 0.38
    assert verified.lines[1].evidence is not None
    assert verified.lines[1].evidence.at_cut.quantity == 1


async def test_the_line_that_differs_is_named(
    both: Both, tenant_a: Tenant, service_database: Callable[[str], ServiceDatabase]
) -> None:
    invoice = await both.invoice(tenant_a)
    async with service_database("billing").connect() as connection:  # as the owner: no role of the service may
        await connection.execute("UPDATE pool.invoice_line SET amount = amount + 1 WHERE charge = 'calls'")
    verified = await both.verify(invoice)
    assert verified.verdict is Verdict.DIFFERS
    assert told(verified) == {
        ("base", "charge"): Verdict.EQUAL,
        ("calls", "charge"): Verdict.DIFFERS,
        ("bytes", "charge"): Verdict.EQUAL,
    }
    assert str(verified.lines[1].amount) == "0.05"
    async with service_database("billing").connect() as connection:
        await connection.execute("UPDATE pool.invoice_line SET amount = amount - 1 WHERE charge = 'calls'")
    async with service_database("usage").connect() as connection:
        await connection.execute("UPDATE pool.usage_event SET data = '{\"bytes\": 11}' WHERE kafka_offset = 0")
    assert told(await both.verify(invoice)) == {
        ("base", "charge"): Verdict.EQUAL,
        ("calls", "charge"): Verdict.EQUAL,
        ("bytes", "charge"): Verdict.DIFFERS,
    }


async def test_evidence_that_is_gone_is_never_equal(both: Both, tenant_a: Tenant) -> None:
    invoice = await both.invoice(tenant_a)
    erased = await both.verify(invoice, erased=True)
    assert (erased.verdict, told(erased)["base", "charge"]) == (Verdict.EVIDENCE_ERASED, Verdict.EQUAL)
    async with both.usage.databases.system_session() as session:
        gone = text(
            "INSERT INTO system.usage_day (day, dropped_at, newest_received_at) VALUES (:day, now(), now())"
            " ON CONFLICT (day) DO UPDATE SET dropped_at = now(), newest_received_at = now()"
        )
        await session.execute(gone, {"day": DAY.date()})
    expired = await both.verify(invoice)
    assert (expired.verdict, told(expired)["bytes", "charge"]) == (Verdict.EVIDENCE_EXPIRED, Verdict.EVIDENCE_EXPIRED)


class Known(GivenState):
    """What billing knows from the start. The live page, which waits for it to be ready, stays away."""

    ready = False


def beside(usage: Usage) -> Starlette:
    """Billing's neighbours at one address: the usage service, and where a token for it comes from."""
    issuer = Issuer(ISSUER)
    usage.state.keys.replace(issuer.jwks)

    async def token(_: Request) -> JSONResponse:
        access = issuer.token(audience="usage", kind="service", scope="service")
        return JSONResponse({"access_token": access, "expires_in": 300})

    return Starlette(routes=[Route("/oauth/token", token, methods=["POST"]), Mount("/", usage.transport.app)])


@asynccontextmanager
async def billing_beside(url: str, known: Known, database: ServiceDatabase) -> AsyncIterator[httpx.AsyncClient]:
    """The application of billing, which finds its neighbours at `url`."""
    settings = TenancySettings.model_validate(
        {
            "issuer": ISSUER,
            "tenant_url": url,
            "services": f"usage={url}",
            "client_id": "billing",
            "client_secret": "only-for-tests",
        }
    )
    databases = Databases("billing", database.settings(), follow_placement=False)
    tenancy = Tenancy("billing", settings, source=known, databases=databases)
    app = create_app(Runtime(BillingSettings(), KafkaSettings(), known, tenancy))  # type: ignore[arg-type] # all but Kafka
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://billing.test") as client,
    ):
        yield client


async def test_it_is_asked_over_http_of_both_services(
    both: Both, tenant_a: Tenant, tenant_b: Tenant, service_database: Callable[[str], ServiceDatabase]
) -> None:
    known, port = Known([tenant_a, tenant_b]), free_port()
    operator, stranger = known.key(Scope.PLATFORM), known.key(Scope.TENANT_READ, tenant=tenant_b)
    path = f"/v1/invoices/{await both.invoice(tenant_a)}/verify"
    async with billing_beside(f"http://127.0.0.1:{port}", known, service_database("billing")) as billing:
        async with running(serve_http(beside(both.usage), host="127.0.0.1", port=port)):
            await eventually(lambda: answers(port))
            verified = await billing.get(path, headers=operator)
            assert verified.status_code == 200, verified.text
            body = verified.json()
            assert (body["result"], body["total"], body["recomputed_total"]) == ("equal", "2.45", "2.45")
            assert [(each["charge"], each["quantity_at_cut"], each["quantity_now"]) for each in body["lines"]] == [
                ("base", None, None),
                ("calls", "4", "4"),
                ("bytes", "40", "40"),
            ]
            correction = await correct(both.usage, tenant_a, 1)
            await eventually(both.usage.counted, within=60)
            body = (await billing.get(path, headers=operator)).json()
            calls = body["lines"][1]
            assert (calls["result"], calls["quantity_now"], calls["unbilled_quantity"]) == ("changed_since", "3", "-1")
            assert [each["id"] for each in calls["corrections"]] == [str(correction)]
            assert (await billing.get(path, headers=stranger)).status_code == 404
        away = await billing.get(path, headers=operator)
        assert (away.status_code, away.json()["type"]) == (503, "unavailable")


async def answers(port: int) -> bool:
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
        return await is_ready(client)
