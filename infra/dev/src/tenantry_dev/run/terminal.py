"""How a command that runs a system behaves towards its terminal and its parent."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from types import FrameType

import httpx
from rich.console import Console

from tenantry_dev.sample.api import SampleError
from tenantry_dev.sample.traces import TraceError
from tenantry_dev.stack import StackError, guard

INTERRUPTED = 130


def run_guarded(console: Console, work: Callable[[], int]) -> int:
    """The exit code of `work`; an error meant for people is printed without a trace, Ctrl-C and its like end it well.

    A system that `make` started ends with `make`, however that ends.
    """
    # A shell starts its background jobs with SIGINT ignored, and asyncio handles it only where Python does.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for name in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(name, _as_interrupt)
    if "MAKELEVEL" in os.environ:
        guard.die_with_parent(signal.SIGTERM, os.getppid())
    try:
        return _unwrapped(work)
    except KeyboardInterrupt:
        return INTERRUPTED
    except (StackError, TraceError, SampleError, httpx.HTTPError) as error:
        console.print("[bold red]It did not work:[/] ", end="")
        console.print(str(error) or repr(error), markup=False, highlight=False, soft_wrap=True)
        return 1


def step_printer(console: Console) -> Callable[[str], None]:
    """Prints each step with the seconds since the first."""
    began = time.monotonic()
    return lambda step: console.print(f"[dim]{time.monotonic() - began:6.1f} s  {step}[/]", highlight=False)


def _unwrapped(work: Callable[[], int]) -> int:
    """Tasks that work together fail together, mostly for one reason: the first says it."""
    try:
        return work()
    except ExceptionGroup as group:
        raise group.exceptions[0] from group


def _as_interrupt(number: int, frame: FrameType | None) -> None:
    """Leads into the one path that cleans up, whose first half is asyncio's own handling of Ctrl-C."""
    del number, frame
    signal.raise_signal(signal.SIGINT)
