"""`tenantry branding`: how a tenant's pages look."""

from pathlib import Path
from typing import Annotated, Any

import typer

from tenant_service.commands._arguments import AsJson, Reference, noun
from tenant_service.commands._client import connect, tenant_path
from tenant_service.commands._output import note, print_fields, print_json
from tenantry.cli import Misused

app = noun("Name, colours and logo of a tenant.")

Colour = Annotated[str | None, typer.Option(metavar="#RRGGBB")]


@app.command()
def show(reference: Reference, *, as_json: AsJson = False) -> None:
    """Show how the tenant's pages look, with defaults for what nobody has set."""
    with connect() as api:
        branding = api.get(tenant_path(api.find_tenant(reference)["id"], "branding"))
    _show(branding, as_json=as_json)


@app.command(name="set")
def set_branding(
    reference: Reference,
    *,
    name: Annotated[str | None, typer.Option()] = None,
    primary: Colour = None,
    accent: Colour = None,
    background: Colour = None,
    text: Colour = None,
    support_email: Annotated[str | None, typer.Option()] = None,
    website: Annotated[str | None, typer.Option()] = None,
    logo: Annotated[
        Path | None, typer.Option(exists=True, dir_okay=False, help="A PNG, JPEG or WebP file of up to 512 KiB.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Change what is said; the rest stays. `config unset REF branding KEY` takes a value away."""
    colours = {"primary": primary, "accent": accent, "background": background, "text": text}
    said: dict[str, Any] = {"name": name, "support_email": support_email, "website": website}
    said = {field: value for field, value in said.items() if value is not None}
    if chosen := {field: value for field, value in colours.items() if value is not None}:
        said["colours"] = chosen
    if not said and logo is None:
        raise Misused("say what to change")
    with connect() as api:
        tenant_id = api.find_tenant(reference)["id"]
        if said:
            api.edit(tenant_path(tenant_id, "config", "branding"), lambda present: _merged(present, said))
        if logo is not None:
            api.upload(tenant_path(tenant_id, "branding", "logo"), logo.read_bytes())
        branding = api.get(tenant_path(tenant_id, "branding"))
    _show(branding, as_json=as_json)


def _merged(present: dict[str, Any], said: dict[str, Any]) -> dict[str, Any]:
    colours = {**(present.get("colours") or {}), **said.get("colours", {})}
    return {**present, **said, **({"colours": colours} if colours else {})}


def _show(branding: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print_json(branding)
        return
    print_fields({field: value for field, value in branding.items() if field != "hints"})
    for hint in branding["hints"]:
        note(hint)
