"""`tenantry support`."""

from enum import StrEnum
from typing import Annotated

import typer

from tenant_service.commands._arguments import AsJson, Everything, IdempotencyKey, Limit, Reference, noun
from tenant_service.commands._client import connect, new_key, tenant_path
from tenant_service.commands._output import print_fields, print_json, print_line, print_page

app = noun("Access of operators to a tenant, for a reason and a time.")


class Access(StrEnum):
    READ = "read"
    WRITE = "write"


@app.command(name="list")
def list_grants(
    reference: Reference, *, limit: Limit = 50, everything: Everything = False, as_json: AsJson = False
) -> None:
    """List who was let in and why, the newest first."""
    with connect() as api:
        path = tenant_path(api.find_tenant(reference)["id"], "support-access")
        page = api.page(path, limit=limit, everything=everything)
    if as_json:
        print_json(page)
        return
    rows = [
        (each["id"], each["operator"], each["reason"], each["expires_at"], each["ended_at"]) for each in page["items"]
    ]
    print_page(page, ("id", "operator", "reason", "expires at", "ended at"), rows)


@app.command()
def grant(
    reference: Reference,
    *,
    reason: Annotated[str, typer.Option(help="The tenant's administrators read it.")],
    minutes: Annotated[int, typer.Option(min=1, max=30)] = 30,
    access: Annotated[Access, typer.Option()] = Access.READ,
    idempotency_key: IdempotencyKey = None,
    as_json: AsJson = False,
) -> None:
    """Let the caller into a tenant."""
    body = {"reason": reason, "minutes": minutes, "access": access}
    with connect() as api:
        path = tenant_path(api.find_tenant(reference)["id"], "support-access")
        made = api.post(path, body, idempotency_key=new_key(idempotency_key))
    if as_json:
        print_json(made)
    else:
        print_fields(made)


@app.command()
def end(
    reference: Reference,
    grant_id: Annotated[str, typer.Argument(metavar="GRANT", help="The grant's id.")],
    *,
    as_json: AsJson = False,
) -> None:
    """End a grant before its time."""
    with connect() as api:
        ended = api.write("DELETE", tenant_path(api.find_tenant(reference)["id"], "support-access", grant_id))
    if as_json:
        print_json(ended)
    else:
        print_line(f"{grant_id} has ended")
