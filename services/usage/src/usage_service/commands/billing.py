"""`tenantry usage bill-from` and `unbilled`: from when usage is billed, as the billing service says it."""

import asyncio
import json
import sys
from typing import Annotated, Any, Final
from urllib.parse import quote

import typer
from rich.console import Console
from rich.table import Table

from tenantry.cli import Misused, printable
from usage_service.commands._api import connect

_COLUMNS: Final = ("tenant_id", "reason", "bill_from", "first_hour", "last_hour", "events", "meters")
_PAGE: Final = 200

Tenant = Annotated[str, typer.Argument(help="Id or external id of the tenant.")]
At = Annotated[str | None, typer.Argument(help="State it: a whole hour in UTC, with an offset.", show_default=False)]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, a line each.")]


def bill_from(
    tenant: Tenant,
    at: At = None,
    *,
    clear: Annotated[bool, typer.Option("--clear", help="Take back what was stated.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show from when a tenant's usage is billed, or state it: earlier usage reaches no invoice. May be repeated.

    Needs an operator's credentials.
    """
    if at is not None and clear:
        raise Misused("either an instant or --clear")
    path = f"/v1/tenants/{quote(tenant, safe='')}/bill-from"

    async def ask() -> dict[str, Any]:
        async with connect("billing") as billing:
            if at is None and not clear:
                found: dict[str, Any] = await billing.ask("GET", path)
            else:
                found = await billing.ask("PUT", path, {"bill_from": at})
            return found

    found = asyncio.run(ask())
    if as_json:
        sys.stdout.write(json.dumps(found) + "\n")
        return
    said = "stated" if found["bill_from"] else "from the beginning of the first subscription"
    Console().print(printable(f"{found['effective']} ({said})" if found["effective"] else "nothing is billed"))


def unbilled(*, as_json: AsJson = False) -> None:
    """List tenants whose usage no subscription covers: behind their bill_from, or where none is stated.

    Ends with code 1 where there are some. Needs an operator's credentials.
    """
    items = asyncio.run(_unbilled())
    if as_json:
        for item in items:
            sys.stdout.write(json.dumps(item) + "\n")
    elif items:
        table = Table(*_COLUMNS)
        for item in items:
            table.add_row(*(printable(item[name]) for name in _COLUMNS))
        # Into a pipe a row is one line, however long, so that it can be searched.
        (Console() if sys.stdout.isatty() else Console(width=500)).print(table)
    if items:
        raise typer.Exit(1)


async def _unbilled() -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = []
    params = {"limit": str(_PAGE)}
    async with connect("billing") as billing:
        while True:
            page = await billing.ask("GET", "/v1/unbilled-usage", params=params)
            items += page["items"]
            if page["next_cursor"] is None:
                return items
            params["cursor"] = page["next_cursor"]
