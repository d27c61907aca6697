"""History that operators bring in: it counts, and what is not before its tenant's `bill_from` is refused as history."""

from __future__ import annotations

import msgspec

from tenantry.testing import eventually
from usage_service.commands._ingest import Ingest

from .support import API_CALLS, event, producer
from .test_importing import ApiWithKey

SEAM = "2026-03-01T00:00:00Z"
BEFORE = "2026-02-28T23:59:59.999999Z"
EVER = {"from": "2015-01-01T00:00:00Z", "to": "2030-01-01T00:00:00Z"}


async def publish(usage, tenant, bill_from, version):
    """As the billing service does."""
    value = None if bill_from is None else msgspec.json.encode({"tenant_id": str(tenant.id), "bill_from": bill_from})
    async with producer(usage.kafka) as sending:
        await sending.send_and_wait(
            usage.kafka.topic("billing.state.v1"),
            value,
            key=str(tenant.id).encode(),
            headers=[("ce_sequence", str(version).encode())],
        )


async def bring_in(usage, *events, **params):
    return await usage.send(*events, headers=usage.operator, accept_late="true", **params)


async def test_only_what_is_before_the_tenants_bill_from_is_history(usage, tenant_a, tenant_b):
    await usage.put_meter("calls", {**API_CALLS, "group_by": {}})
    await publish(usage, tenant_a, SEAM, version=1)
    before, at = event(tenant_a, 1, time=BEFORE), event(tenant_a, 2, time=SEAM)
    others = event(tenant_b, 3, time=SEAM)  # nothing is known of its bills

    async def known() -> bool:
        return (await bring_in(usage, at, dry_run="true")).status_code == 400

    await eventually(known)
    refused = await bring_in(usage, before, at, others)
    assert (refused.status_code, [(each["index"], each["kind"]) for each in refused.json()["errors"]]) == (
        400,
        [(1, "billed")],
    )
    partly = await bring_in(usage, before, at, others, partial="true")
    assert (partly.status_code, partly.json()["accepted"]) == (202, 2)
    assert [each["reason"] for each in partly.json()["rejected"]] == [
        f"time: is not before {SEAM}, from when its tenant is billed"
    ]
    async with usage.metering():
        await eventually(usage.counted, within=60)
        assert await counted(usage, tenant_a) == "1"
        # Who asks for it brings in what will be billed.
        assert (await bring_in(usage, at, billable="true")).status_code == 202
        await eventually(usage.counted, within=60)
    assert await counted(usage, tenant_a) == "2"
    # What is refused as history is not late: nobody is to count it by a replay.
    assert await usage.fetch("SELECT FROM pool.dead_letter") == []


async def test_an_older_state_never_replaces_a_newer_one_and_its_end_is_the_end(usage, tenant_a):
    later = event(tenant_a, 1, time="2026-03-05T00:00:00Z")
    await publish(usage, tenant_a, "2026-04-01T00:00:00Z", version=5)
    await publish(usage, tenant_a, SEAM, version=4)
    await publish(usage, tenant_a, "2026-05-01T00:00:00Z", version=5)
    refused = event(tenant_a, 2, time="2026-04-05T00:00:00Z")

    async def status(of) -> int:
        return (await bring_in(usage, of, dry_run="true")).status_code

    async def known() -> bool:
        return await status(refused) == 400

    await eventually(known)
    assert await status(later) == 200
    await publish(usage, tenant_a, None, version=6)

    async def forgotten() -> bool:
        return await status(refused) == 200

    await eventually(forgotten)


async def test_dead_letters_that_are_imported_are_usage_and_no_history(usage, tenant_a):
    await publish(usage, tenant_a, SEAM, version=1)
    late = msgspec.json.encode(event(tenant_a, 1, time=SEAM))

    async def history_refuses() -> bool:
        return len(await Ingest(ApiWithKey(usage), accept_late=True).send([late])) == 1

    await eventually(history_refuses)
    assert await Ingest(ApiWithKey(usage), accept_late=True, billable=True).send([late]) == []


async def counted(usage, tenant) -> str:
    [item] = (await usage.query(tenant, "calls", **EVER))["items"]
    return item["value"]
