"""`tenantry invitations`."""

from typing import Annotated, Any

import typer

from tenant_service.commands._arguments import AsJson, Everything, IdempotencyKey, Limit, Reference, noun
from tenant_service.commands._client import connect, new_key, tenant_path
from tenant_service.commands._output import note, print_fields, print_json, print_line, print_page
from tenant_service.commands.members import Role

app = noun("Invitations to a tenant, each good for one person, once.")

InvitationId = Annotated[str, typer.Argument(metavar="INVITATION", help="The invitation's id.")]


@app.command(name="list")
def list_invitations(
    reference: Reference, *, limit: Limit = 50, everything: Everything = False, as_json: AsJson = False
) -> None:
    """List invitations in the order in which they were made, closed ones too."""
    with connect() as api:
        path = tenant_path(api.find_tenant(reference)["id"], "invitations")
        page = api.page(path, limit=limit, everything=everything)
    if as_json:
        print_json(page)
        return
    rows = [
        (each["id"], each["email"], " ".join(each["roles"]), each["state"], each["invited_by"], each["expires_at"])
        for each in page["items"]
    ]
    print_page(page, ("id", "email", "roles", "state", "by", "expires at"), rows)


@app.command()
def create(
    reference: Reference,
    email: Annotated[str, typer.Argument()],
    *,
    role: Annotated[list[Role], typer.Option(help="May be repeated.")],
    mailer: Annotated[bool, typer.Option("--mailer", help="Have the company's mailer send the code.")] = False,
    idempotency_key: IdempotencyKey = None,
    as_json: AsJson = False,
) -> None:
    """Invite somebody. The code is shown this once, or mailed."""
    body = {"email": email, "roles": role, "delivery": "mailer" if mailer else "answer"}
    with connect() as api:
        path = tenant_path(api.find_tenant(reference)["id"], "invitations")
        sent = api.post(path, body, idempotency_key=new_key(idempotency_key))
    _show(sent, as_json=as_json)


@app.command()
def resend(
    reference: Reference, invitation: InvitationId, *, idempotency_key: IdempotencyKey = None, as_json: AsJson = False
) -> None:
    """Make a new code with the full time again; the last one is good for nothing any more."""
    with connect() as api:
        path = tenant_path(api.find_tenant(reference)["id"], "invitations", invitation, "resend")
        sent = api.post(path, idempotency_key=new_key(idempotency_key))
    _show(sent, as_json=as_json)


@app.command()
def revoke(reference: Reference, invitation: InvitationId, *, as_json: AsJson = False) -> None:
    """Let nobody in by it any more."""
    with connect() as api:
        api.write("DELETE", tenant_path(api.find_tenant(reference)["id"], "invitations", invitation))
    if as_json:
        print_json(None)
    else:
        print_line(f"{invitation} is revoked")


def _show(sent: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print_json(sent)
        return
    fields = {"id": sent["id"], "email": sent["email"], "roles": " ".join(sent["roles"])}
    print_fields(fields | {"expires at": sent["expires_at"], "code": sent["code"], "url": sent["url"]})
    note("the mailer sends the code" if sent["code"] is None else "the code is shown this once, and works once")
