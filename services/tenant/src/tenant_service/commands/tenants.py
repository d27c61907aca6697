"""`tenantry tenants`: make, look at and stop tenants. `runs` and `offboarding` add to it."""

import json
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from tenant_service.commands._arguments import (
    WAIT_SECONDS,
    AsJson,
    Everything,
    IdempotencyKey,
    Limit,
    Note,
    Reference,
    Timeout,
    Wait,
    complete_tiers,
    flag,
    noun,
)
from tenant_service.commands._client import connect, new_key, tenant_path
from tenant_service.commands._output import note, print_fields, print_json, print_line, print_page
from tenant_service.commands._waiting import follow_run, reason_of
from tenantry.cli import Misused

app = noun("Make, look at, stop and delete tenants.")

COLUMNS = ("slug", "id", "external id", "name", "status", "tier", "region", "store", "created at")

On = Annotated[bool | None, typer.Option("--on/--off", help="Which of the two.", show_default=False)]


class Isolation(StrEnum):
    POOL = "pool"
    SCHEMA = "schema"
    DATABASE = "database"


class Reason(StrEnum):
    BILLING = "billing"
    ABUSE = "abuse"
    CUSTOMER = "customer"
    LEGAL = "legal"


ReasonOption = Annotated[Reason, typer.Option(help="Reasons are a set: each stands until it is lifted.")]


@app.command()
def create(
    slug: Annotated[str, typer.Argument(help="Its short name: a part of host names.")],
    *,
    name: Annotated[str, typer.Option()],
    tier: Annotated[str, typer.Option(autocompletion=complete_tiers)],
    email: Annotated[str, typer.Option(help="Of its first administrator.")],
    external_id: Annotated[str | None, typer.Option(help="Your own key for it; it never changes.")] = None,
    region: Annotated[str | None, typer.Option()] = None,
    isolation: Annotated[Isolation | None, typer.Option(help="Left out: the tier's.")] = None,
    plan: Annotated[str | None, typer.Option(help="Handed on to billing.")] = None,
    clock: Annotated[str | None, typer.Option(help="Id of a test clock.")] = None,
    config: Annotated[
        Path | None, typer.Option(exists=True, dir_okay=False, help="JSON file: what it says in each namespace.")
    ] = None,
    wait: Wait = False,
    timeout: Timeout = WAIT_SECONDS,
    idempotency_key: IdempotencyKey = None,
    as_json: AsJson = False,
) -> None:
    """Make a tenant; it is active when every service has done its part."""
    body: dict[str, Any] = {"slug": slug, "name": name, "tier": tier, "admin_email": email}
    more = {"external_id": external_id, "region": region, "isolation": isolation, "plan": plan, "test_clock": clock}
    body |= {field: value for field, value in more.items() if value is not None}
    if config is not None:
        body["config"] = read_document(config)
    with connect() as api:
        tenant = api.post("/v1/tenants", body, idempotency_key=new_key(idempotency_key))
        if wait:
            follow_run(api, tenant, lambda run: run["kind"] == "provision", seconds=timeout)
            tenant = api.get(tenant_path(tenant["id"]))
    if as_json:
        print_json(tenant)
        return
    print_fields(_fields(tenant))
    if not wait:
        note(f"`tenantry tenants show {slug}` tells when it is active")


@app.command(name="list")
def list_tenants(
    *,
    status: Annotated[str | None, typer.Option(help="As in `active` or `suspended`.")] = None,
    tier: Annotated[str | None, typer.Option(autocompletion=complete_tiers)] = None,
    q: Annotated[str | None, typer.Option("-q", "--query", help="A part of slug, name or external id.")] = None,
    limit: Limit = 50,
    everything: Everything = False,
    as_json: AsJson = False,
) -> None:
    """List tenants in the order in which they were made."""
    with connect() as api:
        page = api.page("/v1/tenants", limit=limit, everything=everything, status=status, tier=tier, q=q)
    if as_json:
        print_json(page)
    else:
        print_page(page, COLUMNS, [_row(tenant) for tenant in page["items"]])


@app.command()
def show(reference: Reference, *, as_json: AsJson = False) -> None:
    """Show a tenant, and what is under way."""
    with connect() as api:
        tenant = api.get(tenant_path(api.find_tenant(reference)["id"]))
    if as_json:
        print_json(tenant)
        return
    print_fields(_fields(tenant))
    for run in tenant["runs"]:
        note(f"{run['kind']} {run['id']} {run['state']}: {'; '.join(map(reason_of, _open_steps(run)))}")


@app.command()
def suspend(reference: Reference, *, reason: ReasonOption, note: Note = "", as_json: AsJson = False) -> None:
    """Stop a tenant for a reason."""
    _change(reference, "suspend", {"reason": reason, "note": note}, as_json=as_json)


@app.command()
def reactivate(reference: Reference, *, reason: ReasonOption, note: Note = "", as_json: AsJson = False) -> None:
    """Lift one reason; the others stay."""
    _change(reference, "reactivate", {"reason": reason, "note": note}, as_json=as_json)


@app.command(name="read-only")
def read_only(reference: Reference, *, on: On = None, note: Note = "", as_json: AsJson = False) -> None:
    """Refuse or allow writes."""
    _change(reference, "read-only", {"on": flag(on), "reason": note}, as_json=as_json)


@app.command(name="legal-hold")
def legal_hold(reference: Reference, *, on: On = None, note: Note = "", as_json: AsJson = False) -> None:
    """Forbid or allow the deletion of its data."""
    _change(reference, "legal-hold", {"on": flag(on), "reason": note}, as_json=as_json)


@app.command()
def trial(
    reference: Reference,
    *,
    ends_at: Annotated[
        datetime | None, typer.Option(help="With its offset from UTC.", formats=["%Y-%m-%dT%H:%M:%S%z"])
    ] = None,
    converted: Annotated[bool, typer.Option("--converted", help="The trial is over and the tenant stays.")] = False,
    note: Note = "",
    as_json: AsJson = False,
) -> None:
    """Begin a trial, change its end, or end it with a customer."""
    if (ends_at is None) != converted:
        raise Misused("say either --ends-at or --converted")
    _change(
        reference, "trial", {"ends_at": None if ends_at is None else ends_at.isoformat(), "note": note}, as_json=as_json
    )


def read_document(path: Path) -> dict[str, Any]:
    """The JSON object in a file. Raises `Misused`."""
    try:
        document = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise Misused(f"{path} holds no JSON: {error}") from None
    if not isinstance(document, dict):
        raise Misused(f"{path} holds JSON that is no object")
    return document


def show_change(tenant: dict[str, Any], *, as_json: bool) -> None:
    """What a tenant has become."""
    if as_json:
        print_json(tenant)
    else:
        print_line(f"{tenant['slug']} is {status_of(tenant)}")


def status_of(tenant: dict[str, Any]) -> str:
    """The status, and what else stops the tenant or its end."""
    words = [
        *tenant["suspension_reasons"],
        *(["read-only"] if tenant["read_only"] else []),
        *(["moving"] if tenant["moving"] else []),
        *(["legal hold"] if tenant["legal_hold"] else []),
    ]
    return f"{tenant['status']} ({', '.join(words)})" if words else str(tenant["status"])


def _change(reference: str, deed: str, body: dict[str, Any], *, as_json: bool) -> None:
    with connect() as api:
        tenant = api.post(tenant_path(api.find_tenant(reference)["id"], deed), body)
    show_change(tenant, as_json=as_json)


def _fields(tenant: dict[str, Any]) -> dict[str, object]:
    placement, clock = tenant["placement"], tenant["test_clock"]
    # A flag of `status` is not said again.
    said = {"status", "suspension_reasons", "read_only", "moving", "legal_hold", "placement", "test_clock", "runs"}
    return {
        "slug": tenant["slug"],
        "status": status_of(tenant),
        **{name: value for name, value in tenant.items() if name not in said and value not in (None, [], {})},
        "placement": placement and f"{placement['store']}, {placement['isolation']}",
        **({} if clock is None else {"test_clock": f"{clock['id']}, at {clock['now']}"}),
    }


def _row(tenant: dict[str, Any]) -> tuple[object, ...]:
    placement = tenant["placement"]
    return (
        tenant["slug"],
        tenant["id"],
        tenant["external_id"],
        tenant["name"],
        status_of(tenant),
        tenant["tier"],
        tenant["region"],
        placement and f"{placement['store']}/{placement['isolation']}",
        tenant["created_at"],
    )


def _open_steps(run: dict[str, Any]) -> list[dict[str, Any]]:
    return [step for step in run["steps"] if step["state"] not in {"succeeded", "queued", "cancelled"}]
