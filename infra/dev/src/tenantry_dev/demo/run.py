"""`tenantry demo`."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from tenantry_dev.demo.comparison import Check, compare_invoices, compare_live, compare_usage, show
from tenantry_dev.demo.memory import PeakMemory
from tenantry_dev.home import Home
from tenantry_dev.oracle import expected_invoices
from tenantry_dev.run.settings import OPERATOR
from tenantry_dev.run.stopping import remove_state
from tenantry_dev.run.system import System, running
from tenantry_dev.run.terminal import run_guarded, step_printer
from tenantry_dev.sample.api import connect
from tenantry_dev.sample.flow import SampleRun, run_sample
from tenantry_dev.sample.record import Record, choose_traces
from tenantry_dev.sample.report import show_invoices, show_traces
from tenantry_dev.sample.traces import Trace

_MEMORY_LIMIT_BYTES = 4 * 2**30


def run_demo(log: Path | None, llm: Path | None) -> int:
    """Exit code: 0 when everything was compared and equal, else another."""
    console = Console()
    home = Home(Home().directory / "demo")

    def demo() -> int:
        with home.exclusive():
            pass  # refuses while another demo runs from here
        remove_state(home)
        try:
            return _demo(console, home, log, llm)
        finally:
            if _succeeded(home):
                remove_state(home)

    return run_guarded(console, demo)


def _succeeded(home: Home) -> bool:
    """The logs of a run that failed are kept."""
    return (home.directory / "equal").exists()


def _demo(console: Console, home: Home, log: Path | None, llm: Path | None) -> int:
    began = time.monotonic()
    home.create()
    record = Record(home)
    traces = choose_traces(home, record, {"log": log, "llm": llm})
    show_traces(console, traces)
    with PeakMemory() as memory, running(home, step_printer(console)) as system:
        run = asyncio.run(run_sample(system, record, traces, console))
        show_invoices(console, run)
        checks = asyncio.run(_compare(system, run, traces))
    _show_replay(console, run)
    console.print("[bold]Compared with the oracle and with the driver of live traffic:[/]")
    equal = show(console, checks)
    peak = memory.peak_bytes
    console.print(f"Peak memory of all processes (PSS): {peak / 2**20:,.0f} MiB; {time.monotonic() - began:.1f} s")
    if peak > _MEMORY_LIMIT_BYTES:
        console.print("[yellow]That is more than the 4 GiB that this run is meant to need.[/]")
    console.print("[bold green]All equal.[/]" if equal else "[bold red]Not equal.[/]")
    if equal:
        (home.directory / "equal").touch()
    return 0 if equal else 1


async def _compare(system: System, run: SampleRun, traces: Sequence[Trace]) -> list[Check]:
    paths = {trace.kind: trace.path for trace in traces}
    expected = expected_invoices(paths["log"], paths["llm"])
    async with connect(system.addresses.urls, OPERATOR, system.secrets[OPERATOR]) as operator:
        return [
            *compare_invoices(expected, run.invoices, run.tenants),
            *await compare_usage(operator.usage, expected, run.tenants),
            *await compare_live(operator.usage, run.live, run.tenants, run.clock),
        ]


def _show_replay(console: Console, run: SampleRun) -> None:
    for kind, replayed in run.replayed.items():
        console.print(f"{kind}: {replayed.sent:,} events acknowledged, {replayed.copies:,} of them sent a second time")
    requests = sum(counted["requests"] for counted in run.live.values())
    console.print(f"live: {requests:,} requests answered by the app service")
