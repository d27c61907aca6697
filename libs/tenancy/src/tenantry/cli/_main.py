"""The command line: `tenantry serve`, and whatever other packages register under `tenantry.commands`."""

import asyncio
import sys
from collections.abc import Callable, Coroutine
from importlib.metadata import entry_points
from typing import Annotated, Any

import typer
from pydantic import ValidationError
from rich.console import Console
from rich.table import Table

from tenantry._errors import StartupRefused, TenantryError
from tenantry.cli._roles import UnknownRole, installed_roles, select_roles
from tenantry.cli._serve import run_roles

COMMANDS = "tenantry.commands"

app = typer.Typer(no_args_is_help=True, add_completion=False, help="Tenantry: the multi-tenant backbone.")
errors = Console(stderr=True)


@app.command()
def serve(
    role: Annotated[list[str], typer.Option(help="A role, a service (all of its roles) or 'all'; may be repeated.")],
) -> None:
    """Run roles in this process until it is told to stop."""
    try:
        chosen = select_roles(role, installed_roles())
    except UnknownRole as error:
        raise typer.BadParameter(str(error), param_hint="--role") from error
    run_or_exit(run_roles(chosen))


@app.command()
def roles(*, as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """List the roles that the installed services register."""
    found = installed_roles()
    console = Console()
    if as_json:
        console.print_json(data=[{"name": r.name, "service": r.service, "help": r.help} for r in found])
        return
    table = Table("role", "service", "what it does")
    for item in found:
        table.add_row(item.name, item.service, item.help)
    console.print(table)


def run_or_exit(work: Coroutine[Any, Any, None]) -> None:
    """Run `work` on uvloop where there is one. A refusal to start is one readable line and exit code 1."""
    try:
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            runner.run(work)
    except ValidationError as error:
        names = ", ".join(".".join(str(part) for part in fault["loc"]) for fault in error.errors())
        errors.print(f"[bold red]refusing to start[/]: settings of {error.title}: {names}: {error.errors()[0]['msg']}")
        raise typer.Exit(1) from None
    except (StartupRefused, TenantryError) as error:
        errors.print(f"[bold red]refusing to start[/]: {error}", soft_wrap=True)
        raise typer.Exit(1) from None


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    if sys.platform == "win32":
        return None
    import uvloop  # noqa: PLC0415 - not a dependency on Windows

    return uvloop.new_event_loop


def main() -> None:
    """The entry point of the `tenantry` script."""
    for entry_point in entry_points(group=COMMANDS):
        commands: typer.Typer = entry_point.load()
        app.add_typer(commands)
    app()
