"""How often a worker takes a turn."""

import asyncio
from contextlib import suppress
from datetime import timedelta

from tenacity import wait_none

from tenant_service.domain.saga import RetryPolicy
from tenant_service.runs.steps import SagaSettings
from tenant_service.runs.worker import TURN_SECONDS, SagaWorker
from tenantry import SystemClock


async def test_steps_that_come_due_one_by_one_are_taken_together(monkeypatch):
    """There is always something due, and a turn takes no time: then turns come at their pace."""
    retry = RetryPolicy(wait=wait_none(), attempts=1, answer_within=timedelta(seconds=1))
    worker = SagaWorker(None, "", SagaSettings(services={}, retry=retry), SystemClock(), concurrency=1)  # type: ignore[arg-type]
    turns = []

    async def turn(_worker):
        turns.append(asyncio.get_running_loop().time())
        await asyncio.sleep(0)
        return ["something"]

    monkeypatch.setattr(SagaWorker, "_turns", turn)
    with suppress(TimeoutError):
        async with asyncio.timeout(6.5 * TURN_SECONDS):
            await worker._loop(asyncio.Event())
    assert 2 <= len(turns) <= 7
    assert turns[1] - turns[0] >= 0.9 * TURN_SECONDS
