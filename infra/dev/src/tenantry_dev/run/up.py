"""`tenantry up`."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from pathlib import Path

from rich.console import Console

from tenantry_dev.home import Home
from tenantry_dev.run.logs import LogView
from tenantry_dev.run.settings import OPERATOR
from tenantry_dev.run.system import System, running
from tenantry_dev.run.terminal import run_guarded, step_printer
from tenantry_dev.sample.api import connect
from tenantry_dev.sample.flow import run_sample
from tenantry_dev.sample.record import Kind, Record, choose_traces
from tenantry_dev.sample.report import show_addresses, show_invoices, show_traces
from tenantry_dev.stack import StackError

_LOOK_SECONDS = 0.25


def run_up(log: Path | None, llm: Path | None, *, sample: bool = True) -> int:
    """Exit code: 0 or 130 after Ctrl-C, 1 where it could not start or go on."""
    console = Console()
    home = Home()
    return run_guarded(console, lambda: _up(console, home, {"log": log, "llm": llm} if sample else None))


def _up(console: Console, home: Home, given: Mapping[Kind, Path | None] | None) -> int:
    home.create()
    record = Record(home)
    # Before anything starts: a file that cannot be used is told at once.
    traces = [] if given is None else choose_traces(home, record, given)
    show_traces(console, traces)
    with running(home, step_printer(console)) as system:
        if traces:
            show_invoices(console, asyncio.run(run_sample(system, record, traces, console)))
        _show_addresses(console, system)
        _stay(console, system)
    return 0


def _show_addresses(console: Console, system: System) -> None:
    urls = system.addresses.urls
    show_addresses(
        console,
        [
            ("operator console", asyncio.run(_sign_in_url(system))),
            *((f"{service} docs", f"{url}/docs") for service, url in urls.items()),
            ("credentials", str(system.home.operator_file)),
            ("logs", str(system.home.logs)),
        ],
    )


async def _sign_in_url(system: System) -> str:
    """Opens the operator's console, signed in; good once, for ten minutes."""
    urls = system.addresses.urls
    async with connect(urls, OPERATOR, system.secrets[OPERATOR]) as operator:
        code = await operator.tenant.post("/v1/sign-in-codes", {"next": f"{urls['billing']}/console"})
    return str(code["url"])


def _stay(console: Console, system: System) -> None:
    """Shows what the processes log until somebody interrupts. Raises StackError when the supervisor is gone."""
    console.print("[bold]Up.[/] Logs follow; Ctrl-C stops everything.")
    view = LogView(system.home.logs, console)
    while system.supervisor.alive:
        view.show()
        time.sleep(_LOOK_SECONDS)
    raise StackError("The supervisor ended, and every process with it. `make up` starts again, with all data.")
