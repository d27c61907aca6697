"""`tenantry revocations`: tokens of an identity provider that are refused before their end."""

from datetime import datetime
from typing import Annotated

import typer

from tenant_service.commands._arguments import (
    AsJson,
    Everything,
    IdempotencyKey,
    Limit,
    Note,
    OptionalReference,
    complete_tenants,
    noun,
)
from tenant_service.commands._client import ControlPlane, connect, new_key, path_of, tenant_path
from tenant_service.commands._output import print_fields, print_json, print_line, print_page

app = noun("Tokens of a company's own identity provider, ended before their time.")

Tenant = Annotated[
    str | None,
    typer.Option(metavar="REF", help="Only in this tenant; left out: in all.", autocompletion=complete_tenants),
]


@app.command(name="list")
def list_revocations(
    reference: OptionalReference = None,
    *,
    limit: Limit = 50,
    everything: Everything = False,
    as_json: AsJson = False,
) -> None:
    """List whose tokens are refused, in a tenant or in all, the newest first."""
    with connect() as api:
        page = api.page(_path(api, reference), limit=limit, everything=everything)
    if as_json:
        print_json(page)
        return
    rows = [
        (each["id"], each["issuer"], each["subject"], each["not_before"], each["reason"], each["created_by"])
        for each in page["items"]
    ]
    print_page(page, ("id", "issuer", "subject", "issued before", "reason", "by"), rows)


@app.command()
def add(
    issuer: Annotated[str, typer.Argument(help="The claim iss of the tokens, to the letter.")],
    subject: Annotated[str, typer.Argument(help="Their claim sub.")],
    *,
    tenant: Tenant = None,
    not_before: Annotated[
        datetime | None,
        typer.Option(help="Tokens issued earlier; left out: now. With its offset.", formats=["%Y-%m-%dT%H:%M:%S%z"]),
    ] = None,
    reason: Note = "",
    idempotency_key: IdempotencyKey = None,
    as_json: AsJson = False,
) -> None:
    """Refuse a person's tokens from now on. Bar the person at the issuer first: later ones are accepted."""
    body = {"issuer": issuer, "subject": subject, "reason": reason}
    if not_before is not None:
        body["not_before"] = not_before.isoformat()
    with connect() as api:
        made = api.post(_path(api, tenant), body, idempotency_key=new_key(idempotency_key))
    if as_json:
        print_json(made)
    else:
        print_fields({"id": made["id"], "issued before": made["not_before"], "forgotten at": made["expires_at"]})


@app.command()
def lift(
    revocation: Annotated[str, typer.Argument(metavar="REVOCATION", help="Its id.")],
    *,
    tenant: Tenant = None,
    as_json: AsJson = False,
) -> None:
    """Accept the tokens again."""
    with connect() as api:
        api.write("DELETE", f"{_path(api, tenant)}{path_of(revocation)}")
    if as_json:
        print_json(None)
    else:
        print_line(f"{revocation} is lifted")


def _path(api: ControlPlane, reference: str | None) -> str:
    if reference is None:
        return path_of("v1", "revocations")
    return tenant_path(api.find_tenant(reference)["id"], "revocations")
