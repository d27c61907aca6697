"""`tenantry usage correct`: events that are taken back, and what counts instead."""

import asyncio
import json
from pathlib import Path
from typing import Annotated

import typer

from tenantry.cli import CommandFailed, Misused
from usage_service.commands._api import connect
from usage_service.commands._correcting import Correcting
from usage_service.commands._options import Sending, bundled
from usage_service.commands._readers import read_corrections
from usage_service.commands._running import send_file

File = Annotated[
    Path | None,
    typer.Argument(help="Corrections as the API takes them, one a line, plain, gzip or zstd; - reads standard input."),
]
Tenant = Annotated[str | None, typer.Option(help="Id or external id of the event's tenant.")]
SourceOf = Annotated[str | None, typer.Option("--source", help="The source of the event that is taken back.")]
Id = Annotated[str | None, typer.Option("--id", help="The id of the event that is taken back.")]
Time = Annotated[
    str | None, typer.Option(help="The event's own time: needed where ids return, and for what is archived.")
]
Replacement = Annotated[
    str | None,
    typer.Option(help="The event that counts instead, as JSON, with an id of its own."),
]
Reason = Annotated[str | None, typer.Option(help="Why; at most 500 characters.")]


@bundled
def correct(
    file: File = None,
    *,
    tenant: Tenant = None,
    source: SourceOf = None,
    event_id: Id = None,
    time: Time = None,
    replacement: Replacement = None,
    reason: Reason = None,
    sending: Sending,
) -> None:
    """Take back an event, or those that a file names; figures change by the difference, and both stay visible.

    May be repeated: the same correction again is a copy. Needs a service's or an operator's credentials. Ends with
    code 1 where some were refused.
    """
    one = {"subject": tenant, "source": source, "id": event_id, "time": time}
    if (file is None) == (source is None or event_id is None or tenant is None):
        raise Misused("either a file, or --tenant, --source and --id of one event")
    if file is None:
        _correct_one({name: said for name, said in one.items() if said is not None}, replacement, reason)
    else:
        send_file(file, read_corrections, sender=Correcting, sending=sending)


def _correct_one(cancels: dict[str, str], replacement: str | None, reason: str | None) -> None:
    correction = json.dumps({"cancels": cancels, **({} if reason is None else {"reason": reason})})
    if replacement is not None:
        # As it was typed: its numbers must not become floats on the way.
        correction = f'{correction[:-1]}, "replacement": {_object(replacement)}}}'

    async def send() -> None:
        async with connect() as api:
            for refused in await Correcting(api).send([correction.encode()]):
                raise CommandFailed(refused.reason)

    asyncio.run(send())
    typer.echo("accepted; figures follow as those of events do")


def _object(text: str) -> str:
    try:
        if isinstance(json.loads(text), dict):
            return text
    except ValueError:
        pass
    raise Misused("--replacement is an event as a JSON object")
