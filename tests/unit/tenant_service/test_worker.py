"""How the worker ends."""

import asyncio
from typing import Any, cast

import pytest

from tenant_service.runs.worker import SagaWorker
from tenantry import SystemClock


async def test_a_worker_that_is_woken_and_cancelled_at_once_ends(monkeypatch):
    absent = cast("Any", None)
    worker = SagaWorker(absent, "", absent, SystemClock(), concurrency=1)

    async def nothing_is_due():
        return []

    monkeypatch.setattr(worker, "_turns", nothing_is_due)
    working = asyncio.create_task(worker._loop(worker._wakes[0]))
    await asyncio.sleep(0)
    worker._wake_all()
    working.cancel()
    done, _ = await asyncio.wait([working], timeout=5)
    assert done
    with pytest.raises(asyncio.CancelledError):
        await working
