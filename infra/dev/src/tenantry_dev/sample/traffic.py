"""Live traffic: people who write documents, attach files, search and delete, through the app service."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

import httpx

from tenantry_dev.sample.api import SampleError
from tenantry_dev.sample.onboarding import SampleTenant

DOCUMENTS = 6
# For each document: create, attach, read, download. Then a search, a list, and every third document deleted.
REQUESTS_PER_TENANT = DOCUMENTS * 4 + 2 + DOCUMENTS // 3

# Repeats of a connection that was refused, for half a minute in all: the service is being started again. A request that
# was under way when it died is not repeated, because nobody can say whether it was counted.
_CONNECTS = 7


async def drive(
    app_url: str, tenants: Sequence[SampleTenant], progress: Callable[[int], None] = lambda _: None, *, seed: int = 3
) -> dict[str, Counter[str]]:
    """One round of requests for every tenant, with its own API key.

    Returns what the driver saw of each tenant by slug: `requests` answered, `bytes_in` and `bytes_out` of bodies, and
    `stored`, the bytes that files occupy more than before.
    """
    counted = {tenant.slug: Counter[str]() for tenant in tenants}
    await asyncio.gather(
        *(
            _drive_tenant(app_url, tenant, counted[tenant.slug], progress, _seeded(seed, tenant.number))
            for tenant in tenants
        )
    )
    return counted


async def _drive_tenant(
    app_url: str,
    tenant: SampleTenant,
    counted: Counter[str],
    progress: Callable[[int], None],
    rng: random.Random,
) -> None:
    async with _session(app_url, tenant, counted, progress) as client:
        sizes: dict[str, int] = {}
        for number in range(DOCUMENTS):
            title = f"{rng.choice(_NOUNS)} {number}"
            body = " ".join(rng.choices(_NOUNS, k=rng.randrange(5, 60)))
            document = (await client.post("/v1/documents", json={"title": title, "body": body})).json()["id"]
            content = rng.randbytes(int(rng.paretovariate(1.1) * 1500) % 200_000)
            file = f"/v1/documents/{document}/files/attachment.bin"
            await client.put(file, content=content, headers={"Content-Type": "application/octet-stream"})
            await client.get(f"/v1/documents/{document}")
            returned = (await client.get(file)).content
            if returned != content:
                raise SampleError(f"{tenant.slug} got back another file than it stored")
            sizes[document] = len(content)
            counted["stored"] += len(content)
        await client.get("/v1/search", params={"q": rng.choice(_NOUNS)})
        await client.get("/v1/documents", params={"limit": 5})
        for document in list(sizes)[: DOCUMENTS // 3]:
            await client.delete(f"/v1/documents/{document}")
            counted["stored"] -= sizes[document]


@asynccontextmanager
async def _session(
    app_url: str, tenant: SampleTenant, counted: Counter[str], progress: Callable[[int], None]
) -> AsyncIterator[httpx.AsyncClient]:
    """A client that counts what it sends and receives."""

    async def count(response: httpx.Response) -> None:
        content = await response.aread()
        response.raise_for_status()
        counted["requests"] += 1
        counted["bytes_in"] += len(response.request.content)
        counted["bytes_out"] += len(content)
        progress(1)

    headers = {"Authorization": f"Bearer {tenant.api_key}", "Accept-Encoding": "identity"}
    async with httpx.AsyncClient(
        base_url=app_url,
        headers=headers,
        timeout=60,
        transport=httpx.AsyncHTTPTransport(retries=_CONNECTS),
        event_hooks={"response": [count]},
    ) as client:
        yield client


_NOUNS = ("contract", "invoice", "minutes", "proposal", "report", "letter", "budget", "plan", "survey", "manual")


def _seeded(seed: int, number: int) -> random.Random:
    return random.Random(f"{seed}/{number}")  # noqa: S311 - reproducible, not secret
