"""`tenantry members`."""

from enum import StrEnum
from typing import Annotated

import typer

from tenant_service.commands._arguments import AsJson, Everything, IdempotencyKey, Limit, Reference, noun
from tenant_service.commands._client import connect, new_key, tenant_path
from tenant_service.commands._output import print_fields, print_json, print_line, print_page

app = noun("People of a tenant.")


class Role(StrEnum):
    OWNER = "owner"
    ADMIN = "admin"
    MEMBER = "member"
    VIEWER = "viewer"
    BILLING = "billing"


@app.command(name="list")
def list_members(
    reference: Reference, *, limit: Limit = 50, everything: Everything = False, as_json: AsJson = False
) -> None:
    """List members in the order in which they came."""
    with connect() as api:
        page = api.page(tenant_path(api.find_tenant(reference)["id"], "members"), limit=limit, everything=everything)
    if as_json:
        print_json(page)
    else:
        rows = [(each["id"], each["email"], each["name"], " ".join(each["roles"])) for each in page["items"]]
        print_page(page, ("id", "email", "name", "roles"), rows)


@app.command()
def add(
    reference: Reference,
    email: Annotated[str, typer.Argument()],
    *,
    role: Annotated[list[Role], typer.Option(help="May be repeated.")],
    name: Annotated[str | None, typer.Option()] = None,
    idempotency_key: IdempotencyKey = None,
    as_json: AsJson = False,
) -> None:
    """Make somebody a member."""
    body = {"email": email, "roles": role, "name": name}
    with connect() as api:
        path = tenant_path(api.find_tenant(reference)["id"], "members")
        member = api.post(path, body, idempotency_key=new_key(idempotency_key))
    if as_json:
        print_json(member)
    else:
        print_fields({"id": member["id"], "email": member["email"], "roles": " ".join(member["roles"])})


@app.command()
def remove(
    reference: Reference,
    member: Annotated[str, typer.Argument(metavar="MEMBER", help="The member's id.")],
    *,
    as_json: AsJson = False,
) -> None:
    """End a membership."""
    with connect() as api:
        api.write("DELETE", tenant_path(api.find_tenant(reference)["id"], "members", member))
    if as_json:
        print_json(None)
    else:
        print_line(f"{member} is no member any more")
