"""`tenantry domains`."""

from typing import Annotated, Any

import typer

from tenant_service.commands._arguments import AsJson, Everything, IdempotencyKey, Limit, Reference, noun
from tenant_service.commands._client import connect, new_key, tenant_path
from tenant_service.commands._output import note, print_fields, print_json, print_line, print_page

app = noun("Domains of a tenant, each proven by a TXT record.")

Domain = Annotated[str, typer.Argument()]


@app.command(name="list")
def list_domains(
    reference: Reference, *, limit: Limit = 50, everything: Everything = False, as_json: AsJson = False
) -> None:
    """List domains and claims."""
    with connect() as api:
        page = api.page(tenant_path(api.find_tenant(reference)["id"], "domains"), limit=limit, everything=everything)
    if as_json:
        print_json(page)
    else:
        rows = [(each["domain"], each["state"], each["verified_at"], each["checked_at"]) for each in page["items"]]
        print_page(page, ("domain", "state", "verified at", "checked at"), rows)


@app.command()
def add(
    reference: Reference, domain: Domain, *, idempotency_key: IdempotencyKey = None, as_json: AsJson = False
) -> None:
    """Claim a domain; prints the record that proves it."""
    with connect() as api:
        path = tenant_path(api.find_tenant(reference)["id"], "domains")
        claim = api.post(path, {"domain": domain}, idempotency_key=new_key(idempotency_key))
    _show(claim, as_json=as_json)
    if not as_json:
        note(f"put the record there, then `tenantry domains verify {reference} {claim['domain']}`")


@app.command()
def verify(reference: Reference, domain: Domain, *, as_json: AsJson = False) -> None:
    """Look for the record now."""
    with connect() as api:
        claim = api.post(tenant_path(api.find_tenant(reference)["id"], "domains", domain, "verify"))
    _show(claim, as_json=as_json)


@app.command()
def release(reference: Reference, domain: Domain, *, as_json: AsJson = False) -> None:
    """Give a domain up."""
    with connect() as api:
        api.write("DELETE", tenant_path(api.find_tenant(reference)["id"], "domains", domain))
    if as_json:
        print_json(None)
    else:
        print_line(f"{domain} is released")


def _show(claim: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print_json(claim)
        return
    challenge = claim["challenge"]
    print_fields(
        {
            "domain": claim["domain"],
            "state": claim["state"],
            "record": f"{challenge['name']} {challenge['type']} {challenge['value']}",
        }
    )
