"""`tenantry usage republish`: what the database holds, on `usage.rollups.v1` once more."""

import asyncio
from typing import Annotated, Any, Final
from urllib.parse import quote

import typer
from rich.console import Console

from tenantry.cli import printable
from usage_service.commands._api import connect

_PATH: Final = "/v1/rollups/republish"
_WAIT_SECONDS: Final = 1.0


def republish(
    tenant: Annotated[
        str | None, typer.Option("--tenant", help="Id or external id of one tenant; without, all.", show_default=False)
    ] = None,
) -> None:
    """Publish all rollups of hours again, for a topic that has lost records. May be cut and repeated.

    Readers know a record by its version, so what they have is dropped. Needs an operator's credentials.
    """
    count = asyncio.run(_republish(tenant))
    Console().print(printable(f"{count:,} rollups are on their way"))


async def _republish(tenant: str | None) -> int:
    body: dict[str, Any] = {}
    if tenant is not None:
        async with connect("tenant") as service:
            body["tenant_id"] = (await service.ask("GET", f"/v1/tenants/{quote(tenant, safe='')}"))["id"]
    count = 0
    async with connect() as usage:
        while True:
            page = await usage.ask("POST", _PATH, body)
            count += int(page["queued"])
            if page["next_cursor"] is None:
                return count
            body["cursor"] = page["next_cursor"]
            if not page["queued"]:
                await asyncio.sleep(_WAIT_SECONDS)
