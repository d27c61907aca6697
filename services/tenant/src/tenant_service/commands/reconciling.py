"""`tenantry tenants reconcile` and `findings`: what services have against what the registry says."""

import time
from typing import Annotated, Any, Final

import typer
from rich.console import Console

from tenant_service.commands._arguments import (
    AsJson,
    Everything,
    Limit,
    Timeout,
    complete_tenants,
)
from tenant_service.commands._client import ControlPlane, connect, new_key, path_of
from tenant_service.commands._output import note, print_json, print_page, print_table
from tenantry.cli import CommandFailed

app = typer.Typer()

_WAIT_SECONDS: Final = 300.0
_PAUSE_SECONDS: Final = 0.5
_STILL_WRONG: Final = 1
_COLUMNS: Final = ("severity", "code", "service", "subject", "since", "repair", "what")

OneOrAll = Annotated[
    str | None,
    typer.Argument(
        metavar="[REF]", help="Id, external id or slug of a tenant; left out: all.", autocompletion=complete_tenants
    ),
]


@app.command()
def reconcile(
    reference: OneOrAll = None,
    *,
    repair: Annotated[bool, typer.Option("--repair/--dry-run", help="Repair what is safe, or only say it.")] = True,
    timeout: Timeout = _WAIT_SECONDS,
    as_json: AsJson = False,
) -> None:
    """Compare the registry with what every service has. Exits with 1 where something is still wrong at the end."""
    with connect() as api:
        tenant = None if reference is None else api.find_tenant(reference)
        body = {"tenant": None if tenant is None else tenant["id"], "repair": repair}
        begun = api.post("/v1/reconciliations", body, idempotency_key=new_key(None))
        ended = _follow(api, begun["id"], seconds=timeout)
        of_tenant = {} if tenant is None else {"tenant": tenant["id"]}
        found = list(api.pages("/v1/findings", **of_tenant))
    if as_json:
        print_json({"reconciliation": ended, "findings": found})
    else:
        if found:
            print_table(_COLUMNS, map(_row, found))
        note(
            f"{ended['opened']} found, {ended['repaired']} repaired, {ended['closed']} closed, {len(found)} still open"
        )
    if found:
        raise typer.Exit(_STILL_WRONG)


@app.command(name="findings")
def list_findings(
    *,
    tenant: Annotated[
        str | None, typer.Option(help="Id, external id or slug.", autocompletion=complete_tenants)
    ] = None,
    code: Annotated[str | None, typer.Option(help="As in `place-missing`.")] = None,
    service: Annotated[str | None, typer.Option()] = None,
    closed: Annotated[bool, typer.Option("--closed", help="Those that are over.")] = False,
    limit: Limit = 50,
    everything: Everything = False,
    as_json: AsJson = False,
) -> None:
    """List what is wrong, the newest first."""
    with connect() as api:
        page = api.page(
            "/v1/findings",
            limit=limit,
            everything=everything,
            tenant=None if tenant is None else api.find_tenant(tenant)["id"],
            code=code,
            service=service,
            state="closed" if closed else "open",
        )
    if as_json:
        print_json(page)
    else:
        print_page(page, _COLUMNS, map(_row, page["items"]))


def _follow(api: ControlPlane, reconciliation_id: str, *, seconds: float) -> dict[str, Any]:
    """The reconciliation when it has ended. Raises `CommandFailed` where it takes longer."""
    ends_at = time.monotonic() + seconds
    with Console(stderr=True).status("reconciling"):
        while True:
            reconciliation: dict[str, Any] = api.get(path_of("v1", "reconciliations", reconciliation_id))
            if reconciliation["state"] == "ended":
                return reconciliation
            if time.monotonic() > ends_at:
                raise CommandFailed(
                    f"the reconciliation has not ended in {seconds:.0f} seconds; it goes on",
                    "is the tenant worker running? `tenantry tenants findings` shows what was found",
                )
            time.sleep(_PAUSE_SECONDS)


def _row(finding: dict[str, Any]) -> tuple[object, ...]:
    repaired = finding["repaired_at"] is not None
    return (
        finding["severity"],
        finding["code"],
        finding["service"],
        finding["subject"],
        finding["opened_at"],
        f"{finding['repair']} tried" if repaired else finding["repair"],
        finding["detail"],
    )
