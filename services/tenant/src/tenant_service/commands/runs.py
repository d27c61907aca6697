"""What `tenantry tenants` says and does about runs."""

from typing import Annotated, Any

import typer

from tenant_service.commands._arguments import WAIT_SECONDS, AsJson, Everything, Limit, Reference, Timeout, Wait
from tenant_service.commands._client import ControlPlane, connect, tenant_path
from tenant_service.commands._output import print_json, print_line, print_page
from tenant_service.commands._waiting import find_run, follow_run, reason_of
from tenantry.cli import CommandFailed

app = typer.Typer()

RunId = Annotated[str | None, typer.Argument(metavar="[RUN]", help="Left out: the one that waits for an operator.")]


@app.command(name="runs")
def list_runs(
    reference: Reference, *, limit: Limit = 50, everything: Everything = False, as_json: AsJson = False
) -> None:
    """List a tenant's runs, the newest first, with their steps."""
    with connect() as api:
        tenant = api.find_tenant(reference)
        page = api.page(tenant_path(tenant["id"], "runs"), limit=limit, everything=everything)
    if as_json:
        print_json(page)
        return
    rows = [
        (run["id"], run["kind"], run["state"], reason_of(step), step["state"], step["attempt"], step["next_retry_at"])
        for run in page["items"]
        for step in run["steps"]
    ]
    print_page(page, ("run", "kind", "state", "step", "is", "attempt", "next attempt"), rows)


@app.command()
def retry(
    reference: Reference,
    run_id: RunId = None,
    *,
    from_step: Annotated[str | None, typer.Option(help="An earlier step than the one that failed.")] = None,
    wait: Wait = False,
    timeout: Timeout = WAIT_SECONDS,
    as_json: AsJson = False,
) -> None:
    """Go on with a run from the step that failed."""
    with connect() as api:
        tenant = api.find_tenant(reference)
        run_id = run_id or _stuck_run(api, tenant)
        run = api.post(tenant_path(tenant["id"], "runs", run_id, "retry"), {"from_step": from_step})
        if wait:
            run = follow_run(api, tenant, lambda each: each["id"] == run_id, seconds=timeout)
    _show(run, as_json=as_json)


@app.command()
def cancel(reference: Reference, run_id: RunId = None, *, as_json: AsJson = False) -> None:
    """Give a run up and undo what it has done."""
    with connect() as api:
        tenant = api.find_tenant(reference)
        run = api.post(tenant_path(tenant["id"], "runs", run_id or _stuck_run(api, tenant), "cancel"))
    _show(run, as_json=as_json)


def _stuck_run(api: ControlPlane, tenant: dict[str, Any]) -> str:
    run = find_run(api, tenant["id"], lambda each: each["state"] == "needs_operator")
    if run is None:
        raise CommandFailed(
            f"no run of {tenant['slug']} waits for an operator", f"name one of `tenantry tenants runs {tenant['slug']}`"
        )
    return str(run["id"])


def _show(run: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print_json(run)
    else:
        print_line(f"{run['kind']} {run['id']} is {run['state']}")
