from __future__ import annotations

import asyncio
import socket
from collections import Counter

from tenantry_dev.sample.onboarding import SampleTenant
from tenantry_dev.sample.traffic import _session

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok"


async def _answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    writer.write(ANSWER)
    await writer.drain()
    writer.close()


async def test_live_traffic_waits_for_a_service_that_is_being_started_again() -> None:
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        port = reserved.getsockname()[1]
    tenant = SampleTenant(0, "sample-00", "018f0000-0000-7000-8000-000000000001", "pool", "key")
    counted: Counter[str] = Counter()
    async with _session(f"http://127.0.0.1:{port}", tenant, counted, lambda _: None) as client:
        request = asyncio.create_task(client.get("/v1/documents"))
        done, _ = await asyncio.wait([request], timeout=0.2)
        assert not done
        async with await asyncio.start_server(_answer, "127.0.0.1", port):
            assert (await request).text == "ok"
    assert counted == {"requests": 1, "bytes_out": 2, "bytes_in": 0}
