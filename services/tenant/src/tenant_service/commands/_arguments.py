"""Arguments and options that several commands share, and what completes them."""

from typing import Annotated

import typer

from tenant_service.commands._client import connect
from tenant_service.commands._failures import CommandFailed, Group, Misused

COMPLETION_SECONDS = 1.0
SUGGESTIONS = 50


def complete_tenants(incomplete: str) -> list[str]:
    """Slugs that begin so; none where the service is not there or does not answer at once."""
    try:
        with connect(timeout=COMPLETION_SECONDS) as api:
            api.sleep = _no_second_attempt
            found = api.get("/v1/tenants", q=incomplete or None, limit=SUGGESTIONS)
            return [each["slug"] for each in found["items"] if each["slug"].startswith(incomplete)]
    except (CommandFailed, _NotNow):
        return []


Reference = Annotated[
    str, typer.Argument(metavar="REF", help="Id, external id or slug of a tenant.", autocompletion=complete_tenants)
]
OptionalReference = Annotated[
    str | None,
    typer.Argument(metavar="[REF]", help="Id, external id or slug of a tenant.", autocompletion=complete_tenants),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Limit = Annotated[int, typer.Option(min=1, max=200, help="How many at most.")]
Everything = Annotated[bool, typer.Option("--all", help="Every one, whatever the limit.")]
Note = Annotated[str, typer.Option(help="Why; it stays in the audit trail.")]
Wait = Annotated[bool, typer.Option("--wait", help="Show the steps until all is done.")]
Timeout = Annotated[float, typer.Option(min=1, help="Seconds to wait at most; the work itself goes on.")]
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask.")]
IdempotencyKey = Annotated[
    str | None, typer.Option(help="Repeat a creation under the key that a command which was cut has named.")
]

WAIT_SECONDS = 600.0


def noun(help_text: str) -> typer.Typer:
    """The commands of one noun."""
    return typer.Typer(cls=Group, no_args_is_help=True, help=help_text)


def confirm(slug: str, deed: str, *, yes: bool) -> None:
    """Have the slug typed in. Raises `CommandFailed` where it is not, or nobody is there to type."""
    if yes:
        return
    try:
        typed = typer.prompt(f"Type {slug} to {deed}", err=True)
    except typer.Abort:
        raise CommandFailed(f"nobody has confirmed to {deed}", "repeat the command with --yes") from None
    if typed != slug:
        raise CommandFailed(f"{typed!r} is not {slug!r}: nothing was done")


def flag(on: bool | None) -> bool:
    """What --on and --off say. Raises `Misused` where neither is there."""
    if on is None:
        raise Misused("say --on or --off")
    return on


class _NotNow(Exception):
    """A completion does not wait."""


def _no_second_attempt(_seconds: float) -> None:
    raise _NotNow
