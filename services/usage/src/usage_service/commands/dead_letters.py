"""`tenantry usage dead-letters`: what could not be counted, from a terminal."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, Final
from uuid import UUID

import typer
from rich.console import Console
from rich.table import Table

from tenantry.cli import CommandFailed, Group, Misused, Unreachable, printable
from usage_service.commands._api import Api, connect
from usage_service.commands._options import bundled

app = typer.Typer(cls=Group, no_args_is_help=True, help="What could not be counted.")

_LETTERS: Final = "/v1/dead-letters"
_PAGE: Final = 200
_COLUMNS: Final = ("received_at", "tenant_id", "kind", "type", "event_id", "reason", "replayed_at", "id")

Kind = Annotated[str | None, typer.Option(help="undecodable, unknown-tenant, invalid-value, conflict or late.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, a line each.")]


@dataclass(frozen=True, slots=True, kw_only=True)
class Received:
    """Whose letters, and of which time."""

    tenant: Annotated[str | None, typer.Option(help="Id or external id of a tenant.")] = None
    start: Annotated[str | None, typer.Option("--from", help="Received at this time or later, with an offset.")] = None
    to: Annotated[str | None, typer.Option(help="Received before this time, with an offset.")] = None

    @property
    def whose(self) -> dict[str, str]:
        return _present(tenant_id=self.tenant)

    @property
    def asked(self) -> dict[str, str]:
        return _present(to=self.to, **{"from": self.start})


@dataclass(frozen=True, slots=True, kw_only=True)
class Which(Received):
    """Which letters; what is left out does not narrow."""

    kind: Kind = None
    meter: Annotated[str | None, typer.Option(help="A meter's name.")] = None
    type: Annotated[str | None, typer.Option(help="The events' type.")] = None

    @property
    def narrowed(self) -> dict[str, str]:
        return self.asked | _present(kind=self.kind, meter=self.meter, type=self.type)


@app.command("list")
@bundled
def list_letters(
    *,
    which: Which,
    replayed: Annotated[bool | None, typer.Option("--replayed/--open", help="Only such.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="How many at most; all without it.")] = None,
    as_json: AsJson = False,
) -> None:
    """List them, the newest first. The lines of --json are what `tenantry usage import dead-letters` takes."""
    asked = which.whose | which.narrowed
    if replayed is not None:
        asked["replayed"] = str(replayed).lower()
    table = Table(*_COLUMNS)

    async def work(api: Api) -> None:
        seen = 0
        async for letter in _pages(api, asked):
            if as_json:
                sys.stdout.write(json.dumps(letter) + "\n")
            else:
                table.add_row(*(printable(letter[name]) for name in _COLUMNS))
            seen += 1
            if seen == limit:
                return

    _run(work)
    if not as_json:
        _console().print(table)


@app.command()
@bundled
def summary(*, received: Received, as_json: AsJson = False) -> None:
    """Count them by tenant and kind."""
    asked = received.whose | received.asked
    items: list[dict[str, Any]] = []

    async def work(api: Api) -> None:
        items.extend((await api.ask("GET", f"{_LETTERS}/summary", params=asked))["items"])

    _run(work)
    if as_json:
        for item in items:
            sys.stdout.write(json.dumps(item) + "\n")
        return
    table = Table("tenant", "kind", "count", "replayed", "last received")
    for item in items:
        whose = item["tenant_id"] or "nobody"
        row = (whose, item["kind"], item["count"], item["replayed"], item["last_received_at"])
        table.add_row(*(printable(each) for each in row))
    _console().print(table)


@app.command()
@bundled
def replay(
    letter: Annotated[
        list[UUID] | None, typer.Argument(metavar="[ID]...", help="Those; without, by the options.")
    ] = None,
    *,
    which: Which,
    value: Annotated[
        str | None, typer.Option(help="What the value of an invalid-value letter, the one that is named, should be.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Send them to be counted, whatever their age; may be repeated. Needs an operator's credentials.

    Ends with code 1 where some cannot be replayed, and says why.
    """
    if value is not None and len(letter or ()) != 1:
        raise Misused("--value is of one letter, which is named")
    sent: list[str] = []
    refused: list[dict[str, str]] = []
    # Those that are named, or all that match.
    work = (
        partial(_replay_each, letter, value, which.whose)
        if letter
        else partial(_replay_all, which.narrowed, which.whose)
    )
    _run(lambda api: work(api, sent, refused))
    if as_json:
        sys.stdout.write(json.dumps({"replayed": sent, "refused": refused}) + "\n")
    else:
        _console().print(f"{len(sent)} replayed, {len(refused)} not", highlight=False)
        for each in refused:
            _console().print(printable(f"{each['id']}: {each['reason']}"), soft_wrap=True)
    if refused:
        raise typer.Exit(1)


async def _replay_each(
    letters: Sequence[UUID],
    value: str | None,
    whose: dict[str, str],
    api: Api,
    sent: list[str],
    refused: list[dict[str, str]],
) -> None:
    for letter in letters:
        try:
            done = await api.ask("POST", f"{_LETTERS}/{letter}/replay", _present(value=value) or None, params=whose)
        except Unreachable:
            raise
        except CommandFailed as failure:
            refused.append({"id": str(letter), "reason": failure.reason})
        else:
            sent.append(done["id"])


async def _replay_all(
    asked: dict[str, str], whose: dict[str, str], api: Api, sent: list[str], refused: list[dict[str, str]]
) -> None:
    cursor: dict[str, str] = {}
    while True:
        page = await api.ask("POST", f"{_LETTERS}/replay", {**asked, **cursor}, params=whose)
        sent.extend(page["replayed"])
        refused.extend(page["refused"])
        if page["next_cursor"] is None:
            return
        cursor = {"cursor": page["next_cursor"]}


async def _pages(api: Api, asked: dict[str, str]) -> AsyncIterator[dict[str, Any]]:
    params = {**asked, "limit": str(_PAGE)}
    while True:
        page = await api.ask("GET", _LETTERS, params=params)
        for letter in page["items"]:
            yield letter
        if page["next_cursor"] is None:
            return
        params["cursor"] = page["next_cursor"]


def _run(work: Callable[[Api], Awaitable[None]]) -> None:
    async def connected() -> None:
        async with connect() as api:
            await work(api)

    asyncio.run(connected())


def _present(**values: str | None) -> dict[str, str]:
    return {name: value for name, value in values.items() if value is not None}


def _console() -> Console:
    # Into a pipe a row is one line, however long, so that it can be searched.
    return Console() if sys.stdout.isatty() else Console(width=500)
