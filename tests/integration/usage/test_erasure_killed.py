"""A relay that is killed while it erases: the next one goes on, and the report counts nothing twice."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

from archives import ArchiveWorld

from tenantry.testing import eventually

from .support import RoleProcess
from .test_erasure import ALICE, report

DAYS, OTHERS, HERS, KILLS = 24, 800, 50, 3


async def test_a_relay_that_is_killed_again_and_again(usage, tenant_a, tmp_path):
    today = datetime.now(UTC).date()
    world = ArchiveWorld(usage.database, usage.databases, tmp_path)
    received = datetime.now(UTC) - timedelta(hours=1)
    for number in range(DAYS):
        day = today - timedelta(days=number)
        await world.put_events(tenant_a.id, range(OTHERS), day=day, data={"user": "bob"}, received=received)
        hers = range(OTHERS, OTHERS + HERS)
        await world.put_events(tenant_a.id, hers, day=day, data={"user": ALICE}, received=received)
    world.clock.moment = datetime.now(UTC)
    await world.keeper().sweep()
    assert ALICE in repr(world.archived())
    asked = await usage.http.post(
        "/v1/erasures", json={"tenant_id": str(tenant_a.id), "values": [ALICE]}, headers=usage.operator
    )
    erasure_id = asked.json()["id"]
    environment = usage.environment() | {"USAGE_ARCHIVE_URL": tmp_path.as_uri()}
    left, first = DAYS + 1, 0
    for _ in range(KILLS):
        relay = await RoleProcess.start("usage-relay", environment)

        async def fewer(before: int = left) -> bool:
            found = await report(usage, erasure_id)
            return found["state"] == "done" or (found["step"] != "waiting" and found["days_left"] < before)

        try:
            await eventually(fewer, within=90, interval=0.02)
        finally:
            await relay.kill()
        left = (await report(usage, erasure_id))["days_left"]
        first = first or left
    relay = await RoleProcess.start("usage-relay", environment)
    try:

        async def done() -> bool:
            return (await report(usage, erasure_id))["state"] == "done"

        await eventually(done, within=120, interval=0.2)
    finally:
        await relay.kill()
    found = await report(usage, erasure_id)
    assert found["rows"]["usage_event"] == DAYS * HERS
    assert first > 0  # it was killed with days to go
    assert ALICE not in json.dumps(found)
    rows = await usage.fetch("SELECT data FROM pool.usage_event WHERE tenant_id = $1", tenant_a.id)
    assert len(rows) == DAYS * (OTHERS + HERS)
    assert not any(ALICE in row["data"] for row in rows)
    assert ALICE not in repr(world.archived())
