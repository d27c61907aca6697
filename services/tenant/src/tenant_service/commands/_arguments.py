"""Arguments and options that several commands share, and what completes them."""

from collections.abc import Callable, Iterable, Mapping
from itertools import islice
from typing import Annotated, Any

import typer

from tenant_service.commands._client import ControlPlane, connect, tenant_path
from tenantry.cli import CommandFailed, Group, Misused

COMPLETION_SECONDS = 1.0
SUGGESTIONS = 50


def complete_tenants(incomplete: str) -> list[str]:
    """Slugs that begin so; none where the service is not there or does not answer at once."""
    return _suggested(
        lambda api: api.get("/v1/tenants", q=incomplete or None, limit=SUGGESTIONS)["items"], "slug", incomplete
    )


def complete_tiers(incomplete: str) -> list[str]:
    """Names of tiers that begin so."""
    return _suggested(lambda api: api.pages("/v1/tiers"), "name", incomplete)


def complete_stores(incomplete: str) -> list[str]:
    """Names of stores that begin so."""
    return _suggested(lambda api: api.pages("/v1/stores"), "name", incomplete)


def complete_flags(incomplete: str) -> list[str]:
    """Names of flags that begin so."""
    return _suggested(lambda api: api.pages("/v1/flags"), "name", incomplete)


def complete_namespaces(incomplete: str) -> list[str]:
    """Namespaces that begin so."""
    return _suggested(lambda api: api.pages("/v1/config-schemas"), "namespace", incomplete)


def complete_keys(context: typer.Context, incomplete: str) -> list[str]:
    """Ids of the keys, of the tenant that was named before, that still hold."""
    reference = context.params.get("reference")

    def living(api: ControlPlane) -> Iterable[Mapping[str, Any]]:
        keys = api.pages(tenant_path(api.find_tenant(str(reference))["id"], "api-keys"))
        return (key for key in keys if key["revoked_at"] is None)

    return _suggested(living, "id", incomplete) if reference else []


def _suggested(listed: Callable[[ControlPlane], Iterable[Mapping[str, Any]]], field: str, incomplete: str) -> list[str]:
    try:
        with connect(timeout=COMPLETION_SECONDS) as api:
            api.sleep = _no_second_attempt
            names = (str(each[field]) for each in listed(api))
            return list(islice((name for name in names if name.startswith(incomplete)), SUGGESTIONS))
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
