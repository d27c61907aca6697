"""`tenantry doctor`. Imports little until it is run: help is shown at once."""

import asyncio
import json
import time
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from tenantry.doctor._errors import DoctorFailed
from tenantry.doctor._rules import RULES, Grade

COULD_NOT_LOOK = 2
FOUND = 1


class Format(StrEnum):
    TABLE = "table"
    JSON = "json"
    SARIF = "sarif"


def doctor(
    url: Annotated[
        str | None,
        typer.Argument(
            envvar="TENANTRY_DOCTOR_URL",
            help="postgresql://user@host/database, as the application connects. The variable keeps a password out of "
            "the list of processes; PGPASSWORD and ~/.pgpass work too.",
            show_default=False,
        ),
    ] = None,
    *,
    column: Annotated[str | None, typer.Option(help="The tenant column, where the guess is wrong.")] = None,
    app_role: Annotated[
        list[str] | None,
        typer.Option(
            help="A role that serves requests; may be repeated. Default: that of the URL and those with sessions."
        ),
    ] = None,
    shared: Annotated[
        list[str] | None, typer.Option(help="A table, schema.table, of reference data; may be repeated and have *.")
    ] = None,
    ignore: Annotated[
        list[str] | None, typer.Option(help="RULE or RULE:object that is accepted; may be repeated and have *.")
    ] = None,
    baseline: Annotated[
        Path | None, typer.Option(help="A file with one RULE[:object] a line, accepted like --ignore.", dir_okay=False)
    ] = None,
    write_baseline: Annotated[
        Path | None, typer.Option(help="Write what was found to this file, as a baseline.", dir_okay=False)
    ] = None,
    fail_on: Annotated[
        Grade, typer.Option(help="The lightest grade that ends with code 1: isolation > performance > citus > info.")
    ] = Grade.ISOLATION,
    output: Annotated[Format, typer.Option("--format", help="What to print.")] = Format.TABLE,
    large_rows: Annotated[int, typer.Option(help="From how many rows a table needs its indexes.", min=1)] = 10_000,
    timeout: Annotated[float, typer.Option(help="Seconds to look for.", min=1)] = 60,
    explain: Annotated[str | None, typer.Option(help="Say what a rule means, and stop.", metavar="RULE")] = None,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Each table, and the SQL of each finding.")] = False,
) -> None:
    """Look at a PostgreSQL database, of any application, for ways between its tenants.

    Read-only: one transaction on the catalogues. Ends with 0 where nothing of the grade --fail-on was found, with 1
    where something was, with 2 where it could not look.
    """
    try:
        if explain is not None:
            _explain(explain)
        elif url is None:
            raise typer.BadParameter("say which database, or set TENANTRY_DOCTOR_URL", param_hint="URL")
        elif _look(
            url,
            column=column,
            app_roles=tuple(app_role or ()),
            shared=tuple(shared or ()),
            accepted=[*(ignore or ()), *_lines_of(baseline)],
            write_baseline=write_baseline,
            fail_on=fail_on,
            output=output,
            large_rows=large_rows,
            seconds=timeout,
            verbose=verbose,
        ):
            raise typer.Exit(FOUND)
    except DoctorFailed as error:
        errors = Console(stderr=True)
        errors.print(f"[bold red]could not look[/]: {escape(str(error))}", soft_wrap=True, highlight=False)
        raise typer.Exit(COULD_NOT_LOOK) from None


def _look(
    url: str,
    *,
    column: str | None,
    app_roles: tuple[str, ...],
    shared: tuple[str, ...],
    accepted: list[str],
    write_baseline: Path | None,
    fail_on: Grade,
    output: Format,
    large_rows: int,
    seconds: float,
    verbose: bool,
) -> bool:
    from tenantry.doctor._examine import Acceptance, Options, examine  # noqa: PLC0415 - the driver

    options = Options(
        column=column,
        app_roles=app_roles,
        shared=shared,
        accepted=tuple(Acceptance.parse(item) for item in accepted),
        large_rows=large_rows,
    )
    begin = time.monotonic()
    report = asyncio.run(examine(url, options, seconds=seconds))
    took = time.monotonic() - begin
    if write_baseline is not None:
        lines = [f"{finding.key}\n" for finding in (*report.findings, *report.accepted)]
        write_baseline.write_text("".join(sorted(lines)), encoding="utf-8")
    match output:
        case Format.TABLE:
            from tenantry.doctor._table import print_report  # noqa: PLC0415 - only people need it

            print_report(Console(), report, took, verbose=verbose)
        case Format.JSON:
            from tenantry.doctor._json import report_json  # noqa: PLC0415 - only programs need it

            typer.echo(json.dumps(report_json(report), indent=2))
        case Format.SARIF:
            from importlib.metadata import version  # noqa: PLC0415 - only programs need it

            from tenantry.doctor._json import report_sarif  # noqa: PLC0415 - only programs need it

            typer.echo(json.dumps(report_sarif(report, version("tenantry")), indent=2))
    return report.fails(fail_on)


def _lines_of(path: Path | None) -> list[str]:
    if path is None:
        return []
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        msg = f"the baseline cannot be read: {error}"
        raise DoctorFailed(msg) from None
    lines = (line.partition(" # ")[0].strip() for line in text.splitlines())
    return [line for line in lines if line and not line.startswith("#")]


def _explain(rule_id: str) -> None:
    from tenantry.doctor._table import print_rule  # noqa: PLC0415 - only people need it

    rule = RULES.get(rule_id.upper())
    if rule is None:
        msg = f"there is no rule {rule_id!r}"
        raise DoctorFailed(msg)
    print_rule(Console(), rule)
