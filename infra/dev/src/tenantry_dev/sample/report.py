"""What a person sees of a sample run."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from decimal import Decimal

from rich.console import Console
from rich.table import Table

from tenantry_dev.sample.flow import SampleRun
from tenantry_dev.sample.traces import Trace

_SHOWN_SKIPPED = 5
_WIDE = 120


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
    wide = console.width >= _WIDE
    table = Table("tenant", "isolation", "invoice", "month", "status", title="Invoices")
    if wide:
        table.add_column("lines")
    table.add_column("total USD", justify="right")
    for column in table.columns:
        column.no_wrap = True
    for invoice in run.invoices:
        tenant = tenants[invoice["tenant_id"]]
        month = invoice["period"]["from"][:7]
        lines = [", ".join(f"{line['charge']} {line['amount']}" for line in invoice["lines"])] if wide else []
        row = (tenant.slug, tenant.isolation, invoice["number"], month, invoice["status"], *lines, invoice["total"])
        table.add_row(*row)
    total = sum((Decimal(invoice["total"]) for invoice in run.invoices), Decimal(0))
    table.add_section()
    table.add_row(f"{len(run.invoices)} invoices", *[""] * (len(table.columns) - 2), str(total))
    console.print(table)


def show_addresses(console: Console, rows: Sequence[tuple[str, str]]) -> None:
    for name, url in rows:
        console.print(f"  {name:<18} {url}", soft_wrap=True, highlight=False)
