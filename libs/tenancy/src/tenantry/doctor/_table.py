"""A report for people."""

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Final

from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.syntax import Syntax
from rich.table import Table
from rich.text import Text

from tenantry.doctor._classify import Classification, TableClass
from tenantry.doctor._examine import Report
from tenantry.doctor._finding import Finding
from tenantry.doctor._rules import RULES, Grade, Rule

_COLOURS: Final = {
    Grade.ISOLATION: "bold red",
    Grade.PERFORMANCE: "yellow",
    Grade.CITUS: "cyan",
    Grade.INFO: "dim",
}
_SHOWN: Final = 8  # of one rule, unless all are asked for


def print_report(console: Console, report: Report, seconds: float, *, verbose: bool) -> None:
    """Prints to `console`; `verbose` shows each table and the SQL of each finding."""
    console.print(
        f"{report.place}, PostgreSQL {report.server}, read-only, {seconds:.1f} s", highlight=False, soft_wrap=True
    )
    console.print(_about(report), highlight=False)
    if verbose:
        console.print(_tables(report.tables))
    for rule_id, group in groupby(report.findings, key=lambda finding: finding.rule_id):
        console.print(_rule(RULES[rule_id], list(group), verbose=verbose))
    for note in report.notes:
        console.print(Text(f"note: {note}", style="dim"), soft_wrap=True)
    console.print(_sum(report), highlight=False)


def print_rule(console: Console, rule: Rule) -> None:
    console.print(Text(f"{rule.id} {rule.title}", style="bold"), Text(rule.grade.value, style=_COLOURS[rule.grade]))
    console.print(rule.why, rule.remedy, sep="\n", highlight=False)


def _about(report: Report) -> str:
    counts = {kind: sum(item.kind is kind for item in report.tables) for kind in TableClass}
    column = "no tenant column"
    if report.column is not None:
        column = f"tenant column {report.column}" + ("" if report.column_was_given else " (guessed)")
    tables = ", ".join(f"{count} {kind.value}" for kind, count in counts.items())
    roles = ", ".join(role.name for role in report.app_roles)
    return f"{column}; tables: {tables}; the application is taken to be {roles}\n"


def _tables(items: Sequence[Classification]) -> Table:
    table = Table("table", "class", "because", "row level security", title_justify="left")
    for item in items:
        security = "forced" if item.table.forced else "on"
        table.add_row(
            Text(item.table.label), item.kind.value, Text(item.proof), security if item.table.secured else "off"
        )
    return table


def _rule(rule: Rule, findings: Sequence[Finding], *, verbose: bool) -> Group:
    shown = findings if verbose else findings[:_SHOWN]
    return Group(*_lines(rule, findings, shown, verbose=verbose))


def _lines(
    rule: Rule, findings: Sequence[Finding], shown: Sequence[Finding], *, verbose: bool
) -> Iterator[RenderableType]:
    heading = Text(f"{rule.id} ", style="bold")
    heading.append(rule.grade.value, style=_COLOURS[rule.grade])
    heading.append(f"  {rule.title}")
    if len(findings) > 1:
        heading.append(f" ({len(findings)})")
    yield heading
    for finding in shown:
        line = Text(finding.object, style="bold")
        line.append(f": {finding.reason}", style="not bold")
        yield Padding(line, (0, 0, 0, 6))
        if verbose:
            yield _sql(finding)
    if len(shown) < len(findings):
        yield Padding(Text(f"and {len(findings) - len(shown)} more", style="dim"), (0, 0, 0, 6))
    if not verbose:
        yield _sql(shown[0])
    yield Text("")


def _sql(finding: Finding) -> Padding:
    sql = f"-- shown by\n{finding.evidence};\n-- put right by\n{finding.fix}"
    return Padding(Syntax(sql, "sql", theme="ansi_dark", word_wrap=True), (0, 0, 0, 6))


def _sum(report: Report) -> str:
    counts = {grade: sum(finding.rule.grade is grade for finding in report.findings) for grade in Grade}
    found = ", ".join(f"[{_COLOURS[grade]}]{count} {grade.value}[/]" for grade, count in counts.items() if count)
    accepted = f"; {len(report.accepted)} accepted" if report.accepted else ""
    return f"{found or 'nothing found'}{accepted}"
