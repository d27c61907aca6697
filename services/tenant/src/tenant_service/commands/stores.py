"""`tenantry stores`."""

from enum import StrEnum
from typing import Annotated, Any

import typer

from tenant_service.commands._arguments import AsJson, Everything, IdempotencyKey, Limit, complete_stores, noun
from tenant_service.commands._client import connect, new_key, path_of
from tenant_service.commands._output import print_fields, print_json, print_page
from tenant_service.commands.tenants import Isolation
from tenantry.cli import Misused

app = noun("Stores: the clusters that tenants are placed in.")

Name = Annotated[str, typer.Argument(autocompletion=complete_stores)]
Isolations = Annotated[list[Isolation] | None, typer.Option(help="On offer there; may be repeated.")]


class State(StrEnum):
    OPEN = "open"
    DRAINING = "draining"
    CLOSED = "closed"


@app.command(name="list")
def list_stores(*, limit: Limit = 50, everything: Everything = False, as_json: AsJson = False) -> None:
    """List stores by name, with how many tenants are there."""
    with connect() as api:
        page = api.page("/v1/stores", limit=limit, everything=everything)
    if as_json:
        print_json(page)
        return
    rows = [
        (each["name"], each["region"], each["state"], each["tenants"], each["capacity"], " ".join(each["isolations"]))
        for each in page["items"]
    ]
    print_page(page, ("name", "region", "state", "tenants", "capacity", "isolations"), rows)


@app.command()
def add(
    name: Name,
    *,
    region: Annotated[str, typer.Option(help="It never changes.")],
    capacity: Annotated[int | None, typer.Option(min=0, help="Left out: any number of tenants.")] = None,
    isolation: Isolations = None,
    state: Annotated[State, typer.Option()] = State.OPEN,
    idempotency_key: IdempotencyKey = None,
    as_json: AsJson = False,
) -> None:
    """Register a cluster. The product's services must know its URLs before a tenant is placed there."""
    body: dict[str, Any] = {"name": name, "region": region, "capacity": capacity, "state": state}
    if isolation:
        body["isolations"] = isolation
    with connect() as api:
        store = api.post("/v1/stores", body, idempotency_key=new_key(idempotency_key))
    _show(store, as_json=as_json)


@app.command(name="set")
def set_store(
    name: Name,
    *,
    capacity: Annotated[int | None, typer.Option(min=0)] = None,
    unlimited: Annotated[bool, typer.Option("--unlimited", help="Any number of tenants.")] = False,
    isolation: Isolations = None,
    state: Annotated[State | None, typer.Option()] = None,
    as_json: AsJson = False,
) -> None:
    """Change a store; tenants that are there stay."""
    if unlimited and capacity is not None:
        raise Misused("say either --capacity or --unlimited")
    changes = {"capacity": capacity, "isolations": isolation, "state": state}
    body: dict[str, Any] = {field: value for field, value in changes.items() if value}
    if capacity is not None or unlimited:
        body["capacity"] = capacity
    if not body:
        raise Misused("say what to change")
    with connect() as api:
        store = api.write("PATCH", path_of("v1", "stores", name), body)
    _show(store, as_json=as_json)


def _show(store: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print_json(store)
    else:
        print_fields(store)
