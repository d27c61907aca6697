"""`tenantry usage erase`: one person taken out of what a tenant's usage keeps, from a terminal."""

import asyncio
import json
import sys
from typing import Annotated, Any, Final
from uuid import UUID

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from tenantry.cli import CommandFailed, Misused, Unreachable, printable
from usage_service.commands._api import Api, connect

_ERASURES: Final = "/v1/erasures"
_POLL_SECONDS: Final = 0.5
_AWAY_SECONDS: Final = 60.0
_STEPS: Final = {
    "waiting": "waiting until everything that was received is counted",
    "days": "days in PostgreSQL",
    "archive": "the archive",
    "again": "days again, since a backfill was under way",
    "letters": "dead letters and corrections",
    "done": "done",
}


def erase(
    value: Annotated[
        list[str] | None,
        typer.Argument(metavar="[VALUE]...", help="What names the person; without, a line each from standard input."),
    ] = None,
    *,
    tenant: Annotated[str | None, typer.Option(help="Id or external id of the tenant.")] = None,
    path: Annotated[
        list[str] | None,
        typer.Option(help="Where in the data, such as $.user_id; without, wherever a text is a value."),
    ] = None,
    attributes: Annotated[bool, typer.Option("--attributes", help="The source and id of events too.")] = False,
    accept_differing_figures: Annotated[
        bool, typer.Option("--accept-differing-figures", help="Although a meter's filter names the person.")
    ] = False,
    show: Annotated[UUID | None, typer.Option(help="Ask for nothing; follow this erasure to its end.")] = None,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Follow it to its end.")] = True,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Erase a person from raw events, the archive, rollups, dead letters, corrections and audit detail.

    Prints the report. Audit detail is the tenant service's, and an operator's to erase.

    May be cut and followed again with --show: the service does the work. Arguments stay in the history of a shell;
    standard input does not.
    """
    body: dict[str, Any] | None = None
    if show is None:
        values = value or [line.strip() for line in sys.stdin if line.strip()]
        if not values or tenant is None:
            raise Misused("name the tenant with --tenant, and what names the person")
        body = {
            "tenant_id": tenant,
            "values": values,
            "paths": path,
            "attributes": attributes,
            "accept_differing_figures": accept_differing_figures,
        }
    report = asyncio.run(_erase(body, show, wait=wait))
    if as_json:
        sys.stdout.write(json.dumps(report) + "\n")
    else:
        _print(report)
    if problem := report.get("audit", {}).get("problem"):
        raise CommandFailed(
            f"audit detail was not erased: {problem}", "an operator does it with `tenantry audit erase`"
        )


async def _erase(body: dict[str, Any] | None, show: UUID | None, *, wait: bool) -> dict[str, Any]:
    async with connect() as api:
        asked = await api.ask("GET", f"{_ERASURES}/{show}") if body is None else await api.ask("POST", _ERASURES, body)
        audit = None if body is None else await _erase_from_audit(asked["tenant_id"], body["values"])
        report: dict[str, Any] = await _follow(api, asked) if wait else asked
    return report if audit is None else {**report, "audit": audit}


async def _erase_from_audit(tenant_id: str, values: list[str]) -> dict[str, Any]:
    """What the tenant service says of its audit trail, or why it has not erased there: the rest is under way."""
    try:
        async with connect("tenant") as api:
            answer: dict[str, Any] = await api.ask(
                "POST", f"/v1/tenants/{tenant_id}/audit/erasures", {"values": values}
            )
    except CommandFailed as error:
        return {"problem": str(error)}
    return answer


async def _follow(api: Api, report: dict[str, Any]) -> dict[str, Any]:
    """The report once it is done; the service may be away for a minute."""
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=None)
        away = 0.0
        while report["state"] != "done":
            planned, left = report["days_planned"], report["days_left"]
            said = _STEPS[report["step"]] + (f" ({report['problem']}; tried again)" if report["problem"] else "")
            days = report["step"] in {"days", "again"} and planned
            done = {"total": planned, "completed": planned - left} if days else {"total": None}
            bar.update(task, description=printable(f"{report['id']}: {said}").plain, **done)
            await asyncio.sleep(_POLL_SECONDS)
            try:
                report = await api.ask("GET", f"{_ERASURES}/{report['id']}")
                away = 0.0
            except Unreachable:
                away += _POLL_SECONDS
                if away > _AWAY_SECONDS:
                    raise CommandFailed(
                        f"erasure {report['id']} goes on, and the service gives no answer",
                        f"follow it later with `tenantry usage erase --show {report['id']}`",
                    ) from None
    return report


def _print(report: dict[str, Any]) -> None:
    console = Console() if sys.stdout.isatty() else Console(width=200)
    console.print(f"erasure {report['id']}: {report['state']}", highlight=False)
    found = Table("place", "rows changed")
    for place, rows in report["rows"].items():
        found.add_row(place, f"{rows:,}")
    if audit := report.get("audit"):
        found.add_row("audit detail", f"{audit['entries']:,}" if "entries" in audit else "not erased")
    console.print(found)
    kept = Table("kept", "why", "until")
    for each in report["kept"]:
        kept.add_row(*(printable(each[name] or "-") for name in ("what", "why", "until")))
    console.print(kept)
    if report["differing_meters"]:
        console.print(printable(f"figures from raw events may differ: {', '.join(report['differing_meters'])}"))
