"""How the runner ends."""

import asyncio
from typing import Any, cast

import pytest

from billing_service.invoicing.runner import InvoiceRunner
from tenantry import SystemClock


async def _fresh() -> None:
    """There is no directory."""


async def test_a_runner_that_is_woken_and_cancelled_at_once_ends():
    absent = cast("Any", None)
    runner = InvoiceRunner(absent, absent, absent, SystemClock(), freshen=_fresh)
    waiting = asyncio.create_task(runner._wait(60))
    await asyncio.sleep(0)
    runner._notified()
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
