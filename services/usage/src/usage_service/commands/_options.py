"""Options that several commands have in common: a dataclass for those that belong together."""

import csv
import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, fields, is_dataclass
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer

from tenantry.cli import Misused
from usage_service.commands._importing import AT_ONCE
from usage_service.commands._mapping import EPOCHS, Column, RowMapping, TenantRule


@dataclass(frozen=True, slots=True, kw_only=True)
class Whose:
    """Which tenant an event is of."""

    tenant: Annotated[str | None, typer.Option(help="Id or external id of the tenant of all events.")] = None
    tenant_column: Annotated[str | None, typer.Option(help="The column that says whose an event is.")] = None
    tenant_pattern: Annotated[
        str | None, typer.Option(help="A regular expression; its one group, found in that column, is the tenant.")
    ] = None
    tenant_map: Annotated[
        Path | None, typer.Option(help="A CSV of two columns without names: what that column says, and the tenant.")
    ] = None

    @property
    def is_said(self) -> bool:
        return self.tenant is not None or self.tenant_column is not None

    def rule(self) -> TenantRule:
        """Raises Misused."""
        try:
            pattern = None if self.tenant_pattern is None else re.compile(self.tenant_pattern)
        except re.error as error:
            raise Misused(f"--tenant-pattern: {error}") from None
        table = None if self.tenant_map is None else _table(self.tenant_map)
        return TenantRule(self.tenant, self.tenant_column, pattern, table)


@dataclass(frozen=True, slots=True, kw_only=True)
class What:
    """What of a row becomes data, and where its events come from."""

    data: Annotated[
        list[str] | None,
        typer.Option(
            help="[NAME=]COLUMN[:TYPE] of what becomes data; TYPE is text, integer, number, boolean or json. "
            "May be repeated; without it all other columns, as they are."
        ),
    ] = None
    source: Annotated[str | None, typer.Option(help="The events' source.")] = None

    def columns(self) -> tuple[Column, ...] | None:
        """Raises Misused."""
        return None if not self.data else tuple(Column.parse(each) for each in self.data)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row(What):
    """What of a row becomes an event, but for its type and its time."""

    epoch: Annotated[str | None, typer.Option(help="The time is a number since 1970 in this unit: s, ms or us.")] = None
    id: Annotated[
        str | None, typer.Option(help="The column of the id; without it, the file's digest and the line's number.")
    ] = None

    def mapping(self, rule: TenantRule, kind: str, time: str, *, source: str) -> RowMapping:
        """Raises Misused."""
        if self.epoch is not None and self.epoch not in EPOCHS:
            raise Misused(f"--epoch is one of {', '.join(EPOCHS)}")
        return RowMapping(
            tenant=rule,
            type=kind,
            source=self.source or source,
            time=time,
            epoch=self.epoch,
            id=self.id,
            columns=self.columns(),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Sending:
    """How what a file holds is sent, and what is said of it."""

    resume: Annotated[bool, typer.Option("--resume", help="Go on where the same command was cut.")] = False
    strict: Annotated[bool, typer.Option("--strict", help="End with code 1 also where lines were skipped.")] = False
    concurrency: Annotated[int, typer.Option(min=1, max=32, help="Requests at a time.")] = AT_ONCE
    as_json: Annotated[bool, typer.Option("--json", help="Print progress and the summary as JSON, a line each.")] = (
        False
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Importing(Sending):
    """How events are sent."""

    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be refused, and why.")] = False


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """Of which age events may be."""

    accept_late: Annotated[
        bool,
        typer.Option(
            "--accept-late",
            help="History: accept events of any age before their tenant's bill_from. Needs an operator's credentials.",
        ),
    ] = False
    billable: Annotated[
        bool, typer.Option("--billable", help="With --accept-late: also what will be billed, from bill_from on.")
    ] = False


def bundled(command: Callable[..., None]) -> Callable[..., None]:
    """The command with the fields of each dataclass that it takes as options of their own."""
    hints = get_type_hints(command, include_extras=True)
    bundles: dict[str, type[Any]] = {
        name: hint for name, hint in hints.items() if isinstance(hint, type) and is_dataclass(hint)
    }
    parameters: list[inspect.Parameter] = []
    for name, parameter in inspect.signature(command).parameters.items():
        if name not in bundles:
            parameters.append(parameter.replace(annotation=hints[name]))
            continue
        of_fields = get_type_hints(bundles[name], include_extras=True)
        for each in fields(bundles[name]):
            default = inspect.Parameter.empty if each.default is MISSING else each.default
            parameters.append(
                inspect.Parameter(
                    each.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=of_fields[each.name]
                )
            )

    @wraps(command)
    def run(*args: Any, **given: Any) -> None:
        made = {
            name: bundle(**{each.name: given.pop(each.name) for each in fields(bundle)})
            for name, bundle in bundles.items()
        }
        command(*args, **given, **made)

    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]  # where inspect looks first
    run.__annotations__ = {each.name: each.annotation for each in parameters}
    return run


def _table(file: Path) -> Mapping[str, str]:
    try:
        with file.open(encoding="utf-8-sig", newline="") as text:
            rows = [row for row in csv.reader(text) if row]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise Misused(f"{file} cannot be read: {error}") from None
    if any(len(row) != 2 for row in rows):
        raise Misused(f"{file}: each line has two columns: a value, and its tenant")
    return {value.strip(): tenant.strip() for value, tenant in rows}
