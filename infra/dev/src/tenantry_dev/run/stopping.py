"""`tenantry down` and `tenantry clean`: from another terminal than the one that runs the system."""

from __future__ import annotations

import shutil
import signal

import psutil
from rich.console import Console

from tenantry_dev.home import Home
from tenantry_dev.run.supervisor import end_leftovers
from tenantry_dev.run.terminal import run_guarded
from tenantry_dev.stack import EmbeddedPostgres, StackError

_DOWN_SECONDS = 90.0


def run_down() -> int:
    console = Console()
    return run_guarded(console, lambda: _down(console, Home()))


def run_clean() -> int:
    console = Console()

    def clean() -> int:
        home = Home()
        _down(console, home)
        with home.exclusive():
            remove_state(home)
        console.print(f"Removed {home.directory}")
        return 0

    return run_guarded(console, clean)


def remove_state(home: Home) -> None:
    """Deletes everything below the state directory, and PostgreSQL's data where that lies elsewhere."""
    for inner in home.directory.glob("*/postgres.password"):
        EmbeddedPostgres(inner.parent).remove()
    EmbeddedPostgres(home.directory).remove()
    shutil.rmtree(home.directory, ignore_errors=True)


def _down(console: Console, home: Home) -> int:
    holder = home.holder()
    if holder is not None:
        console.print(f"Stopping process {holder}")
        try:
            process = psutil.Process(holder)
            process.send_signal(signal.SIGTERM)
            process.wait(_DOWN_SECONDS)
        except psutil.NoSuchProcess:
            pass
        except psutil.TimeoutExpired:
            raise StackError(f"Process {holder} did not stop within {_DOWN_SECONDS:.0f} s.") from None
    elif end_leftovers(home):
        console.print("Ended what a killed run had left")
    else:
        console.print("Nothing was running")
    return 0
