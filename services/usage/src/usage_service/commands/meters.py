"""`tenantry usage meters`: which meters there are, and counting for one what was stored before it, from a terminal."""

import asyncio
import json
import sys
from datetime import datetime
from typing import Annotated, Any, Final
from urllib.parse import quote

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from tenantry.cli import CommandFailed, Group, Misused, Unreachable, printable
from usage_service.commands._api import Api, connect

app = typer.Typer(cls=Group, no_args_is_help=True, help="Meters, and counting for one what was stored before it.")

_METERS: Final = "/v1/meters"
_POLL_SECONDS: Final = 0.5
_AWAY_SECONDS: Final = 60.0
_DEFINITION: Final = ("event_type", "aggregation", "value", "group_by", "filter", "unit")

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, a line each.")]


@app.command("list")
def list_meters(*, as_json: AsJson = False) -> None:
    """List all meters, and how far their backfills are."""
    meters = asyncio.run(_all())
    if as_json:
        for meter in meters:
            sys.stdout.write(json.dumps(meter) + "\n")
        return
    table = Table("meter", "version", "aggregation", "event type", "backfill")
    for meter in meters:
        cells = (meter["slug"], str(meter["version"]), meter["aggregation"], meter["event_type"], _said(meter))
        table.add_row(*(printable(cell) for cell in cells))
    Console().print(table)


@app.command()
def backfill(
    meter: Annotated[str, typer.Argument(help="The meter's name.")],
    since: Annotated[
        str | None, typer.Option("--from", help="Since when, with an offset; without, only follow.")
    ] = None,
    *,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Follow it to its end.")] = True,
    as_json: AsJson = False,
) -> None:
    """Count what was stored before a meter was made, and follow it. May be cut and repeated: the service works on."""
    if since is not None:
        try:
            known = datetime.fromisoformat(since).tzinfo is not None
        except ValueError:
            known = False
        if not known:
            raise Misused("--from is an instant with an offset, such as 2026-01-01T00:00:00Z")
    found = asyncio.run(_backfill(meter, since, wait=wait))
    if as_json:
        sys.stdout.write(json.dumps(found) + "\n")
    else:
        Console().print(printable(f"{found['slug']}: {_said(found)}"))


async def _all() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    params: dict[str, str] = {"limit": "200"}
    async with connect() as api:
        while True:
            page = await api.ask("GET", _METERS, params=params)
            found += page["items"]
            if page["next_cursor"] is None:
                return found
            params["cursor"] = page["next_cursor"]


async def _backfill(slug: str, since: str | None, *, wait: bool) -> dict[str, Any]:
    path = f"{_METERS}/{quote(slug, safe='')}"
    async with connect() as api:
        meter: dict[str, Any] = await api.ask("GET", path)
        if since is not None:
            body = {**{name: meter[name] for name in _DEFINITION}, "backfill_from": since}
            meter = await api.ask("PUT", path, body)
        return await _follow(api, path, meter) if wait and meter["backfill"] is not None else meter


async def _follow(api: Api, path: str, meter: dict[str, Any]) -> dict[str, Any]:
    """The meter once its backfill is done; the service may be away for a minute."""
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=None)
        away = 0.0
        while meter["backfill"]["state"] != "finished":
            done = meter["backfill"]
            bar.update(task, description=printable(_said(meter)).plain, total=done["days"], completed=done["days_done"])
            await asyncio.sleep(_POLL_SECONDS)
            try:
                meter = await api.ask("GET", path)
                away = 0.0
            except Unreachable:
                away += _POLL_SECONDS
                if away > _AWAY_SECONDS:
                    raise CommandFailed(
                        "the backfill goes on, and the service gives no answer",
                        f"follow it later with `tenantry usage meters backfill {meter['slug']}`",
                    ) from None
    return meter


def _said(meter: dict[str, Any]) -> str:
    done = meter["backfill"]
    if done is None:
        return "-"
    days = f", {done['days_done']} of {done['days']} days" if done["days"] is not None else ""
    return f"{done['state']} from {done['from']}{days}, {done['events']:,} events"
