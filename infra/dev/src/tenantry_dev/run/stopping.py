"""`tenantry down` and `tenantry clean`: from another terminal than the one that runs the system."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal

from rich.console import Console

from tenantry_dev.home import Home
from tenantry_dev.run.supervisor import end_leftovers
from tenantry_dev.run.terminal import run_guarded
from tenantry_dev.stack import EmbeddedPostgres, StackError
from tenantry_dev.stack.process import wait_until

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
        with contextlib.suppress(ProcessLookupError):
            os.kill(holder, signal.SIGTERM)
        # Its lock goes last, whoever its parent is and whether that has noticed its end.
        if not wait_until(lambda: home.holder() is None, alive=lambda: True, within=_DOWN_SECONDS):
            raise StackError(f"Process {holder} did not stop within {_DOWN_SECONDS:.0f} s.")
    elif end_leftovers(home):
        console.print("Ended what a killed run had left")
    else:
        console.print("Nothing was running")
    return 0
