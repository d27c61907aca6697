"""Following a run until it ends, with its steps as they stand."""

import time
from collections.abc import Callable
from typing import Any, Final, Self

from rich.console import Console, Group
from rich.spinner import Spinner
from rich.table import Table

from tenant_service.commands._client import ControlPlane, tenant_path
from tenantry.cli import CommandFailed, printable

_FIRST_PAUSE: Final = 0.2
_LONGEST_PAUSE: Final = 2.0
_MARKS: Final = {"succeeded": "[green]done[/]", "failed": "[red]failed[/]", "cancelled": "[yellow]cancelled[/]"}

Run = dict[str, Any]


def find_run(api: ControlPlane, tenant_id: str, wanted: Callable[[Run], bool]) -> Run | None:
    """The newest of the tenant's runs that is `wanted`."""
    return next((run for run in api.pages(tenant_path(tenant_id, "runs")) if wanted(run)), None)


def follow_run(api: ControlPlane, tenant: dict[str, Any], wanted: Callable[[Run], bool], *, seconds: float) -> Run:
    """The newest run that is `wanted`, once it has succeeded; meanwhile its steps are shown on standard error.

    Raises `CommandFailed` where it needs an operator, was cancelled, or takes longer.
    """
    slug, ends_at, pause = tenant["slug"], time.monotonic() + seconds, _FIRST_PAUSE
    with _Display() as display:
        while True:
            run = find_run(api, tenant["id"], wanted)
            if run is not None:
                display.show(run)
                if run["state"] == "succeeded":
                    return run
                if run["state"] == "needs_operator":
                    raise stuck(slug, run)
                if run["state"] == "cancelled":
                    raise CommandFailed(f"the {run['kind']} of {slug} was cancelled", f"`tenantry tenants show {slug}`")
            if time.monotonic() + pause > ends_at:
                raise CommandFailed(
                    f"{slug} is not ready after {seconds:.0f} seconds; the work goes on",
                    f"look with `tenantry tenants runs {slug}`",
                )
            time.sleep(pause)
            pause = min(pause * 1.3, _LONGEST_PAUSE)


def stuck(slug: str, run: Run) -> CommandFailed:
    """Why `run` needs an operator, and the command that goes on with it."""
    failed = next((step for step in run["steps"] if step["state"] == "failed"), None)
    return CommandFailed(
        f"the {run['kind']} of {slug} has stopped: {'no step has failed' if failed is None else reason_of(failed)}",
        f"put that right, then `tenantry tenants retry {slug} {run['id']} --wait` "
        f"(or give it up: `tenantry tenants cancel {slug} {run['id']}`)",
    )


def reason_of(step: dict[str, Any]) -> str:
    """The step's name and its errors, with those of the services it has asked; the name alone where it has none."""
    errors = [f"{name}: {error['detail']}" for name, error in _errors_of(step)]
    return f"{step['name']}: {'; '.join(errors)}" if errors else str(step["name"])


def _errors_of(step: dict[str, Any]) -> list[tuple[str, dict[str, str]]]:
    of_services = [(each["name"], each["error"]) for each in step["services"] if each["error"] is not None]
    own = [] if step["error"] is None else [(step["error"]["code"], step["error"])]
    return of_services or own


class _Display:
    """The steps on standard error: redrawn in a terminal, else a line for each change."""

    def __init__(self) -> None:
        self._console = Console(stderr=True)
        self._live: Any = None
        self._said: dict[int, str] = {}

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            from rich.live import Live  # noqa: PLC0415 - only terminals need it

            self._live = Live(console=self._console, refresh_per_second=10)
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()

    def show(self, run: Run) -> None:
        if self._live is not None:
            self._live.update(_steps(run))
            return
        for position, step in enumerate(run["steps"]):
            if step["state"] != "queued" and self._said.get(position) != step["state"]:
                self._said[position] = step["state"]
                self._console.print(printable(f"{run['kind']}: {reason_of(step)}: {step['state']}"), soft_wrap=True)


def _steps(run: Run) -> Group:
    table = Table(box=None, show_header=False)
    for step in run["steps"]:
        open_services = ", ".join(each["name"] for each in step["services"] if each["state"] != "done")
        running = step["state"] in {"pending", "waiting"}
        mark = Spinner("dots", step["state"]) if running else _MARKS.get(step["state"], step["state"])
        said = reason_of(step) if _errors_of(step) else open_services if running else ""
        table.add_row(printable(step["name"]), mark, printable(said))
    return Group(printable(f"{run['kind']}: {run['state']}"), table)
