"""`tenantry tenants reconcile` against the service as a process, with the reconciler in its worker."""

import os
from collections.abc import AsyncIterator
from functools import partial

import anyio
import httpx
import pytest
from processes import SERVE, free_port, is_ready
from tests.integration.tenant.conftest import SECRETS
from tests.integration.tenant.test_commands import MASTER_KEY, Terminal

from tenantry.events import create_topics
from tenantry.testing import eventually


@pytest.fixture
async def terminal(database, bootstrap_file, kafka_bootstrap, kafka_prefix, tmp_path) -> AsyncIterator[Terminal]:
    await create_topics(kafka_bootstrap, prefix=kafka_prefix)
    address = f"http://127.0.0.1:{(port := free_port())}"
    environment = {
        **os.environ,
        **database.environment(),
        "TENANT_PORT": str(port),
        "TENANT_BASE_URL": address,
        "TENANT_MASTER_KEY": MASTER_KEY,
        "TENANT_BOOTSTRAP_FILE": str(bootstrap_file),
        "TENANT_RECONCILE_MINUTES": "0",
        "TENANT_RECONCILE_TOLERANCE_SECONDS": "0.3",
        "TENANTRY_ISSUER": address,
        "TENANTRY_KAFKA_BOOTSTRAP": kafka_bootstrap,
        "TENANTRY_TOPIC_PREFIX": kafka_prefix,
    }
    async with await anyio.open_process([*SERVE, "tenant"], env=environment, stdout=None, stderr=None) as served:
        async with httpx.AsyncClient(base_url=address) as http:
            await eventually(partial(is_ready, http), within=60)
        operator = {"TENANTRY_CLIENT_ID": "operator", "TENANTRY_CLIENT_SECRET": SECRETS["operator"]}
        yield Terminal({**os.environ, **operator, "TENANTRY_TENANT_URL": address, "COLUMNS": "200"})
        served.terminate()
        with anyio.fail_after(20):
            assert await served.wait() == 0


async def test_what_is_wrong_is_shown_repaired_and_gone(terminal, database):
    said = await terminal.json("tenants", "reconcile")
    assert (said["findings"], said["reconciliation"]["state"]) == ([], "ended")
    async with database.connect() as connection:
        await connection.execute("UPDATE system.store SET tenants = tenants + 5")

    shown = await terminal.run("tenants", "reconcile", "--dry-run", code=1)
    assert "store-count" in shown.stdout
    assert "1 still open" in shown.stderr
    listed = await terminal.json("tenants", "findings", "--code", "store-count")
    assert [each["detail"] for each in listed["items"]] == ["it says 5 tenants, and 0 are placed there"]

    done = await terminal.run("tenants", "reconcile")
    assert "1 repaired, 1 closed, 0 still open" in done.stderr
    assert (await terminal.json("tenants", "findings"))["items"] == []
    (over,) = (await terminal.json("tenants", "findings", "--closed"))["items"]
    assert over["repaired_at"] is not None


async def test_a_tenant_that_there_is_not_is_refused(terminal):
    refused = await terminal.run("tenants", "reconcile", "nobody", code=1)
    assert "nobody" in refused.stderr
