import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from functools import partial

import httpx
import msgspec
from billing_installation import Installation
from processes import free_port, is_ready

from billing_service.app import create_app
from billing_service.usage.consumers import GROUP, RollupConsumer
from tenantry import Tenant
from tenantry.cli import serve_http
from tenantry.events import OutboxRelay, TransactionalConsumer
from tenantry.identity import SESSION_COOKIE
from tenantry.testing import eventually

from .support import APRIL, MARCH, Billing, at, rollup


class Stream:
    """An open console: the last state of each part of the page."""

    def __init__(self) -> None:
        self.parts: dict[str, str] = {}
        self.frames = 0
        self.ended = False

    async def read(self, client: httpx.AsyncClient, headers: dict[str, str]) -> None:
        async with client.stream("GET", "/console/stream", headers=headers) as response:
            assert response.status_code == 200
            assert response.headers["content-type"].startswith("text/event-stream")
            event = ""
            async for line in response.aiter_lines():
                if line.startswith("event: "):
                    event = line.removeprefix("event: ")
                elif line.startswith("data: ") and event == "board":
                    self.parts.update(json.loads(line.removeprefix("data: ")))
                    self.frames += 1
        self.ended = True


@asynccontextmanager
async def open_console(installation: Installation, headers: dict[str, str]) -> AsyncIterator[Stream]:
    port = free_port()
    app = create_app(installation.runtime())
    serving = asyncio.create_task(serve_http(app, host="127.0.0.1", port=port))
    stream = Stream()
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=30) as client:
        await eventually(partial(is_ready, client), within=60)
        await eventually(lambda: _is_signed_in(client, headers), within=60)
        reading = asyncio.create_task(stream.read(client, headers))
        try:
            yield stream
        finally:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)
            serving.cancel()
            await asyncio.gather(serving, return_exceptions=True)


async def _is_signed_in(client: httpx.AsyncClient, headers: dict[str, str]) -> bool:
    return (await client.get("/console", headers=headers)).status_code == 200


@asynccontextmanager
async def consuming(installation: Installation, billing: Billing) -> AsyncIterator[None]:
    """The rollup consumer of a billing worker, in this process."""
    consumer = TransactionalConsumer(
        kafka=installation.kafka,
        engine=billing.databases.system,
        group=GROUP,
        topics=["usage.rollups.v1"],
        handle=RollupConsumer(billing.directory.is_purged).handle,
    )
    task = asyncio.create_task(consumer.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_the_page_follows_the_stream_from_where_the_copy_stands(
    installation: Installation, billing: Billing, tenant_a: Tenant
) -> None:
    tenant = at(tenant_a, MARCH + timedelta(days=20))
    await billing.put_plan()
    await billing.subscribe(tenant)
    await installation.publish_tenants(tenant)
    session_id, secret = await installation.session("platform")
    headers = {"Cookie": f"{SESSION_COOKIE}={secret}"}
    await installation.publish_rollups([rollup(tenant.id, "requests", MARCH, 1, 1000)])

    async def copied() -> bool:
        return bool(await billing.scalar("SELECT count(*) FROM usage_rollup"))

    async with consuming(installation, billing):
        await eventually(copied, within=60)
    # Behind the stored offsets: the page has to read these from the topic itself.
    newer = rollup(tenant.id, "requests", MARCH, 2, 1600)
    await installation.publish_rollups([newer, newer, rollup(tenant.id, "requests", MARCH, 1, 1000)])

    async with open_console(installation, headers) as stream:
        # 20.00 + 1600 * 0.0125 = 40.00
        await eventually(lambda: "40.00" in stream.parts.get("tenants", ""), within=60)
        assert "1.60k" in stream.parts["usage"]
        await installation.publish_rollups([rollup(tenant.id, "bytes", MARCH, 1, 1, "500")])
        await eventually(lambda: "45.00" in stream.parts["figures"], within=60)
        await installation.publish_rollups(
            [rollup(tenant.id, "requests", MARCH + timedelta(hours=hour), 1, 8) for hour in range(1, 101)]
        )
        await eventually(lambda: "55.00" in stream.parts["figures"], within=60)
        assert not stream.ended
        await installation.end_session(session_id)
        await eventually(lambda: stream.ended)


async def test_final_invoices_and_new_tenants_appear(
    installation: Installation, billing: Billing, tenant_b: Tenant
) -> None:
    _, secret = await installation.session("platform")
    headers = {"Cookie": f"{SESSION_COOKIE}={secret}"}
    async with open_console(installation, headers) as stream:
        await eventually(lambda: stream.frames > 0, within=60)
        assert "Newcomer" not in stream.parts["tenants"]
        tenant = msgspec.structs.replace(at(tenant_b, MARCH + timedelta(days=20)), name="Newcomer")
        await installation.publish_tenants(tenant)
        await eventually(lambda: "Newcomer" in stream.parts["tenants"], within=60)
        await billing.put_plan()
        await billing.subscribe(tenant)
        await _publish_outbox(installation, billing)
        await eventually(lambda: "20.00" in stream.parts["figures"], within=60)
        billing.directory.upsert(at(tenant, APRIL + timedelta(days=1)))
        await billing.run(APRIL)
        await _publish_outbox(installation, billing)
        await eventually(lambda: "INV-000001" in stream.parts["invoices"], within=60)


async def _publish_outbox(installation: Installation, billing: Billing) -> None:
    """The relay of a billing service, until it has published everything."""
    relay = asyncio.create_task(OutboxRelay("billing", billing.databases.system, installation.kafka).run())
    try:
        await eventually(lambda: _is_empty(billing), within=60)
    finally:
        relay.cancel()
        await asyncio.gather(relay, return_exceptions=True)


async def _is_empty(billing: Billing) -> bool:
    return not await billing.scalar("SELECT count(*) FROM system.outbox")
