"""Serving: what a process has made by the time it serves is not looked at again by the garbage collector."""

import asyncio
import contextlib
import gc

from starlette.applications import Starlette

from tenantry.cli import serve_http
from tenantry.testing import eventually


async def test_what_there_is_when_serving_begins_is_not_collected_again():
    made = []

    @contextlib.asynccontextmanager
    async def lifespan(_app):
        made.append({"of": "the lifespan"})
        yield

    gc.unfreeze()
    serving = asyncio.create_task(serve_http(Starlette(lifespan=lifespan), host="127.0.0.1", port=0))
    try:
        assert await eventually(gc.get_freeze_count) > 1000
        assert not any(each is made for each in gc.get_objects())
    finally:
        serving.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await serving
        gc.unfreeze()
