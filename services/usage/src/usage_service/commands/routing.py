"""`tenantry usage routing`: over how many keys the events of tenants are spread, from a terminal."""

import asyncio
import json
import sys
from typing import Annotated, Any, Final
from urllib.parse import quote

import typer
from rich.console import Console
from rich.table import Table

from tenantry.cli import Group, printable
from usage_service.commands._api import connect

app = typer.Typer(cls=Group, no_args_is_help=True, help="Over how many keys the events of loud tenants are spread.")

_COLUMNS: Final = ("tenant_id", "slug", "events_per_second", "buckets", "pinned", "keys", "mixed_until", "changed_at")

Tenant = Annotated[str, typer.Argument(help="Id or external id of the tenant.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, a line each.")]


@app.command("list")
def list_routing(*, as_json: AsJson = False) -> None:
    """List the loudest tenants and all that are spread. Needs an operator's credentials."""
    items = asyncio.run(_list())
    if as_json:
        for item in items:
            sys.stdout.write(json.dumps(item) + "\n")
        return
    table = Table(*_COLUMNS)
    for item in items:
        table.add_row(*(printable("-" if item[name] is None else str(item[name])) for name in _COLUMNS))
    Console().print(table)


@app.command()
def pin(tenant: Tenant, buckets: Annotated[int, typer.Argument(min=1)], *, as_json: AsJson = False) -> None:
    """Spread a tenant over so many keys, and leave it so however loud it is. May be repeated."""
    _show(asyncio.run(_route(tenant, {"buckets": buckets, "pinned": True})), as_json=as_json)


@app.command()
def unpin(tenant: Tenant, *, as_json: AsJson = False) -> None:
    """Leave it to the usage service again. May be repeated."""
    _show(asyncio.run(_unpin(tenant)), as_json=as_json)


async def _list() -> list[dict[str, Any]]:
    async with connect() as usage:
        items: list[dict[str, Any]] = (await usage.ask("GET", "/v1/routing"))["items"]
        return items


async def _route(tenant: str, routing: dict[str, Any]) -> dict[str, Any]:
    async with connect("tenant") as service:
        answer: dict[str, Any] = await service.ask("PUT", f"{_path(tenant)}/routing", routing)
        return answer


async def _unpin(tenant: str) -> dict[str, Any]:
    async with connect("tenant") as service:
        present = (await service.ask("GET", _path(tenant)))["routing"]
    return await _route(tenant, {"buckets": present["buckets"]})


def _path(tenant: str) -> str:
    return f"/v1/tenants/{quote(tenant, safe='')}"


def _show(tenant: dict[str, Any], *, as_json: bool) -> None:
    routing = tenant["routing"]
    if as_json:
        sys.stdout.write(json.dumps({"tenant_id": tenant["id"], **routing}) + "\n")
        return
    keys = "one key" if routing["buckets"] == 1 else f"{routing['buckets']} keys"
    pinned = "pinned" if routing["pinned"] else "as it turns out to be needed"
    Console().print(printable(f"{tenant['slug']}: {keys}, {pinned}"))
