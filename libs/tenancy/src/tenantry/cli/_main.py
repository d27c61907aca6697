"""The command line: `tenantry serve`, and whatever other packages register under `tenantry.commands`."""

import asyncio
import os
import sys
from collections.abc import Callable, Coroutine
from importlib.metadata import entry_points
from typing import Annotated, Any, Final, Literal, NamedTuple

import structlog
import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from tenantry._errors import StartupRefused, TenantryError
from tenantry._logging import configure_logging
from tenantry._tracing import configure_tracing
from tenantry.cli._roles import ALL, UnknownRole, installed_roles, installed_services, select_roles
from tenantry.doctor._command import doctor

COMMANDS = "tenantry.commands"

log = structlog.get_logger(__name__)

app = typer.Typer(no_args_is_help=True, help="Tenantry: the multi-tenant backbone.")
topics = typer.Typer(no_args_is_help=True, help="Make the topics in Kafka.")
app.add_typer(topics, name="topics")
app.command()(doctor)
errors = Console(stderr=True)


@app.command()
def serve(
    role: Annotated[list[str], typer.Option(help="A role, a service (all of its roles) or 'all'; may be repeated.")],
    metrics_port: Annotated[
        int | None,
        typer.Option(envvar="TENANTRY_METRICS_PORT", min=1, max=65535, help="Serve /metrics and /healthz here, too."),
    ] = None,
    metrics_host: Annotated[str, typer.Option(envvar="TENANTRY_METRICS_HOST")] = "127.0.0.1",
) -> None:
    """Run roles in this process until it is told to stop."""
    from tenantry.cli._serve import metrics_role, run_roles  # noqa: PLC0415 - other commands need not wait for it

    try:
        chosen = select_roles(role, installed_roles(role))
    except UnknownRole as error:
        raise typer.BadParameter(str(error), param_hint="--role") from error
    name = "tenantry" if len({item.service for item in chosen}) > 1 else chosen[0].service
    configure_logging(
        name,
        level=os.environ.get("TENANTRY_LOG_LEVEL", "INFO"),
        json=os.environ.get("TENANTRY_LOG_JSON", "true").lower() not in {"0", "false", "no"},
    )

    async def run() -> None:
        configure_tracing(name)
        await run_roles(chosen if metrics_port is None else [*chosen, metrics_role(name, metrics_host, metrics_port)])

    run_or_exit(run())


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


@app.command(name="migrate")
def migrate_databases(
    service: Annotated[list[str], typer.Option(help="A service or 'all'; may be repeated.")],
) -> None:
    """Bring services' databases to their newest version.

    Each is reached by its <SERVICE>_MIGRATOR_DATABASE_URL, and in its other stores by <SERVICE>_STORES.
    """
    from tenantry.database import MigratorSettings, migrate  # noqa: PLC0415 - the extra `migrations`

    installed = installed_services()
    chosen = installed if ALL in service else service
    if unknown := sorted(set(chosen) - set(installed)):
        raise typer.BadParameter(f"not installed: {', '.join(unknown)}", param_hint="--service")

    async def run() -> None:
        for name in chosen:
            if not os.environ.get(variable := f"{name.upper()}_MIGRATOR_DATABASE_URL"):
                raise StartupRefused(f"{variable} is not set")
            settings = MigratorSettings.from_env(name)
            for store, url in settings.urls().items():
                place = name if store == settings.store else f"{name} in {store}"
                applied = await migrate(url, name)
                Console().print(f"{place}: {', '.join(applied) or 'nothing to do'}", highlight=False)

    run_or_exit(run())


@topics.command()
def create(
    profile: Annotated[
        str,
        typer.Option(help="'embedded' (one broker) or 'production' (three replicas)."),
    ] = "production",
) -> None:
    """Create the topics that are missing.

    On TENANTRY_KAFKA_BOOTSTRAP, their names after TENANTRY_TOPIC_PREFIX.
    """
    from tenantry.events import KafkaSettings, create_topics  # noqa: PLC0415 - the extra `kafka`

    if profile not in {"embedded", "production"}:
        raise typer.BadParameter("must be 'embedded' or 'production'", param_hint="--profile")
    known: Literal["embedded", "production"] = "embedded" if profile == "embedded" else "production"

    async def run() -> None:
        await create_topics(KafkaSettings(), known)

    run_or_exit(run())


@topics.command()
def grant(
    *,
    service: Annotated[list[str] | None, typer.Option(help="A service; may be repeated. All without it.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only print what the users need.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Give each service's Kafka user the rights it needs, and no others.

    The users have the services' names and exist already. Needs an administrator's TENANTRY_KAFKA_SASL_USERNAME.
    """
    from tenantry.events import KafkaSettings, acls_of, grant_rights, load_principals  # noqa: PLC0415 - the extra

    known = load_principals()
    if unknown := sorted(set(service or ()) - known.keys()):
        raise typer.BadParameter(f"not in topics.yaml: {', '.join(unknown)}", param_hint="--service")
    kafka, console = KafkaSettings(), Console()
    acls = [acl for name in (service or known) for acl in acls_of(name, kafka.topic_prefix)]
    if dry_run and as_json:
        console.print_json(
            data=[
                {
                    "user": a.user,
                    "resource": a.kind.name,
                    "name": a.name,
                    "pattern": a.pattern.name,
                    "right": a.right.name,
                }
                for a in acls
            ]
        )
    elif dry_run:
        table = Table("user", "resource", "name", "pattern", "right")
        for acl in acls:
            table.add_row(acl.user, acl.kind.name, acl.name, acl.pattern.name, acl.right.name)
        console.print(table)
    else:

        async def run() -> None:
            added, removed = await grant_rights(kafka, service)
            if as_json:
                console.print_json(data={"added": len(added), "removed": len(removed), "total": len(acls)})
            else:
                console.print(f"{len(acls)} rights: {len(added)} added, {len(removed)} taken away", highlight=False)

        run_or_exit(run())


def run_or_exit(work: Coroutine[Any, Any, None]) -> None:
    """Run `work` on uvloop where there is one, and end the process with code 1 where it raises.

    A refusal to start (settings, database roles, an address in use) and a database that is away are one line on
    standard error; any other error is logged with its traceback.
    """
    try:
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            runner.run(work)
    except Exception as error:
        end = _explain(error)
        if end is None:
            log.exception("process_failed")
        else:
            errors.print(f"[bold red]{end.what}[/]: {escape(end.reason)}", soft_wrap=True, highlight=False)
        raise typer.Exit(1) from None


class _End(NamedTuple):
    """Why a process ended, for whoever runs it. A supervisor tells by `what` whether another start may go better."""

    what: Literal["refusing to start", "cannot run now"]
    reason: str


def _explain(error: BaseException) -> _End | None:
    """What somebody can put right, or what passes; None for a defect."""
    if isinstance(error, BaseExceptionGroup):
        ends = [_explain(part) for part in error.exceptions]
        known = sorted({end for end in ends if end is not None}, reverse=True)  # refusals first
        return _End(known[0].what, "; ".join(end.reason for end in known)) if None not in ends else None
    from tenantry.database._outage import find_outage  # noqa: PLC0415 - it knows every driver's errors

    # Without the extra that has pydantic there are none of its errors.
    pydantic = sys.modules.get("pydantic")
    if pydantic is not None and isinstance(error, pydantic.ValidationError):
        names = ", ".join(".".join(str(part) for part in fault["loc"]) for fault in error.errors())
        return _End("refusing to start", f"settings of {error.title}: {names}: {error.errors()[0]['msg']}")
    if isinstance(error, StartupRefused):
        return _End("refusing to start", str(error))
    if isinstance(error, TenantryError):
        return _End("cannot run now", str(error))
    outage = find_outage(error)
    return None if outage is None else _End("cannot run now", f"a database is away: {outage}")


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    if sys.platform == "win32":
        return None
    import uvloop  # noqa: PLC0415 - not a dependency on Windows

    return uvloop.new_event_loop


def main() -> None:
    """The entry point of the `tenantry` script."""
    configure_logging("tenantry", json=False)  # of commands; `serve` says more
    if sys.argv[1:2] not in _OWN_COMMANDS:
        for entry_point in entry_points(group=COMMANDS):
            commands: typer.Typer = entry_point.load()
            app.add_typer(commands)
    app()


# The services' packages are not imported for these.
_OWN_COMMANDS: Final = [[name] for name in ("doctor", "migrate", "roles", "serve", "topics")]
