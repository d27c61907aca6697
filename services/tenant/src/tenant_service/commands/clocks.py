"""`tenantry clocks`: test clocks, where the service has them."""

import time
from datetime import datetime
from http import HTTPStatus
from typing import Annotated, Any

import typer

from tenant_service.commands._arguments import WAIT_SECONDS, AsJson, IdempotencyKey, Timeout, Wait, noun
from tenant_service.commands._client import ControlPlane, connect, new_key, path_of
from tenant_service.commands._failures import Refused
from tenant_service.commands._output import print_fields, print_json
from tenantry.cli import CommandFailed

app = noun("Test clocks: tenants of one live in its time.")

ClockId = Annotated[str, typer.Argument(metavar="CLOCK", help="The clock's id.")]
_FORMATS = ["%Y-%m-%dT%H:%M:%S%z"]
_PAUSE_SECONDS = 0.5


@app.command()
def create(
    now: Annotated[datetime, typer.Argument(help="With its offset from UTC.", formats=_FORMATS)],
    *,
    idempotency_key: IdempotencyKey = None,
    as_json: AsJson = False,
) -> None:
    """Make a clock; `tenants create --test-clock` binds tenants to it."""
    with connect() as api:
        try:
            clock = api.post("/v1/test-clocks", {"now": now.isoformat()}, idempotency_key=new_key(idempotency_key))
        except Refused as failure:
            if failure.status != HTTPStatus.NOT_FOUND:
                raise
            raise CommandFailed(
                "there are no test clocks here", "start the service with them: TENANT_TEST_CLOCKS_ENABLED=true"
            ) from None
    _show(clock, as_json=as_json)


@app.command()
def show(clock_id: ClockId, *, as_json: AsJson = False) -> None:
    """Show a clock; it is advancing until every service has caught up."""
    with connect() as api:
        clock = api.get(path_of("v1", "test-clocks", clock_id))
    _show(clock, as_json=as_json)


@app.command()
def advance(
    clock_id: ClockId,
    to: Annotated[datetime, typer.Argument(help="With its offset from UTC.", formats=_FORMATS)],
    *,
    wait: Wait = False,
    timeout: Timeout = WAIT_SECONDS,
    idempotency_key: IdempotencyKey = None,
    as_json: AsJson = False,
) -> None:
    """Move a clock forward, and every tenant that is bound to it."""
    with connect() as api:
        path = path_of("v1", "test-clocks", clock_id)
        clock = api.post(f"{path}/advance", {"to": to.isoformat()}, idempotency_key=new_key(idempotency_key))
        if wait:
            clock = _arrived(api, path, seconds=timeout)
    _show(clock, as_json=as_json)


def _arrived(api: ControlPlane, path: str, *, seconds: float) -> dict[str, Any]:
    """The clock once every service has caught up. Raises `CommandFailed` where that takes longer."""
    ends_at = time.monotonic() + seconds
    while True:
        clock: dict[str, Any] = api.get(path)
        if clock["status"] == "ready":
            return clock
        if time.monotonic() > ends_at:
            raise CommandFailed(
                f"the services have not caught up after {seconds:.0f} seconds; they go on",
                f"look with `tenantry clocks show {clock['id']}`",
            )
        time.sleep(_PAUSE_SECONDS)


def _show(clock: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print_json(clock)
    else:
        print_fields({"id": clock["id"], "shows": clock["now"], "status": clock["status"]})
