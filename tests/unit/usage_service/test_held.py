"""Work of the relay that has to outlive the servers it needs."""

import asyncio
import contextlib

from tenantry.testing import eventually
from usage_service.publishing.held import keep_at


async def test_work_is_taken_up_again_after_a_failure():
    tries: list[int] = []

    async def work():
        tries.append(len(tries))
        if len(tries) == 1:
            raise ConnectionRefusedError
        await asyncio.Event().wait()

    keeping = asyncio.create_task(keep_at("work", work))
    await eventually(lambda: len(tries) == 2, within=10)
    assert not keeping.done()
    keeping.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await keeping
