"""What a person sees of a sample run."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from decimal import Decimal

from rich.console import Console
from rich.table import Table

from tenantry_dev.sample.flow import SampleRun
from tenantry_dev.sample.traces import Trace

_SHOWN_SKIPPED = 5


def show_traces(console: Console, traces: Iterable[Trace]) -> None:
    """The files, and which of their lines were skipped and why."""
    for trace in traces:
        span = f"{trace.first:%Y-%m-%d %H:%M} to {trace.last:%Y-%m-%d %H:%M}"
        console.print(f"{trace.path.name}: {trace.events_total:,} events, {span}")
        for skipped in trace.skipped[:_SHOWN_SKIPPED]:
            console.print(f"  [yellow]line {skipped.line} skipped:[/] {skipped.reason}")
        if len(trace.skipped) > _SHOWN_SKIPPED:
            console.print(f"  [yellow]and {len(trace.skipped) - _SHOWN_SKIPPED:,} more lines skipped[/]")


def show_invoices(console: Console, run: SampleRun) -> None:
    """The table of invoices, the same for the same traces."""
    tenants = {tenant.id: tenant for tenant in run.tenants}
    table = Table("tenant", "isolation", "number", "period", "lines", "status", title="Invoices")
    table.add_column("total", justify="right")
    for invoice in run.invoices:
        tenant = tenants[invoice["tenant_id"]]
        lines = ", ".join(f"{line['charge']} {line['amount']}" for line in invoice["lines"])
        period = f"{invoice['period']['from'][:10]} to {invoice['period']['to'][:10]}"
        due = f"{invoice['total']} {invoice['currency']}"
        table.add_row(tenant.slug, tenant.isolation, invoice["number"], period, lines, invoice["status"], due)
    total = sum((Decimal(invoice["total"]) for invoice in run.invoices), Decimal(0))
    table.add_section()
    table.add_row("", "", "", "", f"{len(run.invoices)} invoices", "", f"{total} USD")
    console.print(table)


def show_addresses(console: Console, rows: Sequence[tuple[str, str]]) -> None:
    for name, url in rows:
        console.print(f"  {name:<18} {url}", soft_wrap=True, highlight=False)
