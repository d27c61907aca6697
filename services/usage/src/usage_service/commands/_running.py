"""A command that sends what a file holds, from its first line to the summary."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Final

import typer

from usage_service.commands._api import Api, connect
from usage_service.commands._files import Source, open_source
from usage_service.commands._importing import import_lines
from usage_service.commands._ingest import Sender
from usage_service.commands._options import Sending
from usage_service.commands._progress import Journal, Tally, Telling
from usage_service.commands._readers import Read

_NOT_ALL: Final = 1


def send_file(
    file: Path,
    read: Callable[[Source], Read],
    *options: object,
    sender: Callable[[Api], Sender],
    sending: Sending,
    dry_run: bool = False,
) -> None:
    """Sends the lines that `read` makes of the file, and ends the command with 1 where one was refused.

    `options` are what else makes it the same work, beside the file and the service, which --resume goes on with.
    """
    tally = Tally()

    async def run(source: Source, telling: Telling) -> None:
        async with connect() as api:
            journal = None if dry_run else Journal(source, [api.url, read.__qualname__, *options])
            first = journal.next_line() if journal is not None and sending.resume else 0
            reads, at_once = read(source), sending.concurrency
            await import_lines(reads, sender(api), tally, telling, journal, first=first, at_once=at_once)

    with open_source(file) as source, Telling(source, as_json=sending.as_json) as telling:
        try:
            asyncio.run(run(source, telling))
        finally:
            telling.end(tally, dry_run=dry_run)
    if tally.refused or (sending.strict and tally.skipped):
        raise typer.Exit(_NOT_ALL)
