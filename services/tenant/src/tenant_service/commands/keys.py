"""`tenantry keys`: a tenant's API keys."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any

import typer

from tenant_service.commands._arguments import (
    AsJson,
    Everything,
    IdempotencyKey,
    Limit,
    Reference,
    complete_keys,
    noun,
)
from tenant_service.commands._client import connect, new_key, tenant_path
from tenant_service.commands._output import note, print_fields, print_json, print_line, print_page

app = noun("API keys of a tenant.")

KeyId = Annotated[str, typer.Argument(metavar="KEY", help="The key's id.", autocompletion=complete_keys)]


class Scope(StrEnum):
    ADMIN = "tenant:admin"
    WRITE = "tenant:write"
    READ = "tenant:read"
    BILLING = "tenant:billing"


@app.command(name="list")
def list_keys(
    reference: Reference, *, limit: Limit = 50, everything: Everything = False, as_json: AsJson = False
) -> None:
    """List keys, those that have ended too."""
    with connect() as api:
        page = api.page(tenant_path(api.find_tenant(reference)["id"], "api-keys"), limit=limit, everything=everything)
    if as_json:
        print_json(page)
        return
    rows = [
        (
            each["id"],
            each["name"],
            each["prefix"],
            " ".join(each["scopes"]),
            each["expires_at"],
            each["revoked_at"],
            each["last_used_at"],
        )
        for each in page["items"]
    ]
    print_page(page, ("id", "name", "begins with", "scopes", "expires at", "revoked at", "last used at"), rows)


@app.command()
def create(
    reference: Reference,
    *,
    name: Annotated[str, typer.Option()],
    scope: Annotated[list[Scope], typer.Option(help="May be repeated.")],
    expires_at: Annotated[
        datetime | None, typer.Option(help="With its offset from UTC.", formats=["%Y-%m-%dT%H:%M:%S%z"])
    ] = None,
    idempotency_key: IdempotencyKey = None,
    as_json: AsJson = False,
) -> None:
    """Make a key. It is shown this once."""
    body = {"name": name, "scopes": scope, "expires_at": None if expires_at is None else expires_at.isoformat()}
    with connect() as api:
        path = tenant_path(api.find_tenant(reference)["id"], "api-keys")
        made = api.post(path, body, idempotency_key=new_key(idempotency_key))
    _show(made, as_json=as_json)


@app.command()
def rotate(
    reference: Reference,
    key_id: KeyId,
    *,
    overlap: Annotated[int, typer.Option(min=0, help="Seconds for which the old one is accepted beside it.")] = 3600,
    idempotency_key: IdempotencyKey = None,
    as_json: AsJson = False,
) -> None:
    """Make the key that takes another's place. It is shown this once."""
    with connect() as api:
        path = tenant_path(api.find_tenant(reference)["id"], "api-keys", key_id, "rotate")
        made = api.post(path, {"overlap_seconds": overlap}, idempotency_key=new_key(idempotency_key))
    _show(made, as_json=as_json)


@app.command()
def revoke(reference: Reference, key_id: KeyId, *, as_json: AsJson = False) -> None:
    """End a key at once; may be repeated."""
    with connect() as api:
        api.write("DELETE", tenant_path(api.find_tenant(reference)["id"], "api-keys", key_id))
    if as_json:
        print_json(None)
    else:
        print_line(f"{key_id} is revoked")


def _show(made: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print_json(made)
        return
    print_fields({"id": made["id"], "name": made["name"], "scopes": " ".join(made["scopes"]), "key": made["key"]})
    note("the key is shown this once: keep it where secrets are kept")
