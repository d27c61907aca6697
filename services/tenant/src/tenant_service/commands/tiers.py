"""`tenantry tiers`."""

from pathlib import Path
from typing import Annotated, Any

import typer

from tenant_service.commands._arguments import AsJson, Everything, Limit, noun
from tenant_service.commands._client import connect, path_of
from tenant_service.commands._output import print_fields, print_json, print_line, print_page
from tenant_service.commands.tenants import read_document

app = noun("Tiers: what the tenants of one may use.")

Name = Annotated[str, typer.Argument()]


@app.command(name="list")
def list_tiers(*, limit: Limit = 50, everything: Everything = False, as_json: AsJson = False) -> None:
    """List tiers by name."""
    with connect() as api:
        page = api.page("/v1/tiers", limit=limit, everything=everything)
    if as_json:
        print_json(page)
    else:
        rows = [(each["name"], each["version"], each["isolation"], each["limits"]) for each in page["items"]]
        print_page(page, ("name", "version", "isolation", "limits"), rows)


@app.command()
def show(name: Name, *, as_json: AsJson = False) -> None:
    """Show a tier."""
    with connect() as api:
        tier = api.get(path_of("v1", "tiers", name))
    if as_json:
        print_json(tier)
    else:
        print_fields(tier)


@app.command(name="set")
def set_tier(
    name: Name,
    *,
    file: Annotated[Path, typer.Option("--file", "-f", exists=True, dir_okay=False, help="JSON file of the tier.")],
    as_json: AsJson = False,
) -> None:
    """Make a tier, or give it a new version; what the file leaves out is as for a new one.

    What `show --json` prints can be edited and sent back: its version then has to be the present one.
    """
    body: dict[str, Any] = read_document(file)
    version = body.pop("version", None)
    body.pop("name", None)
    with connect() as api:
        tier = api.write("PUT", path_of("v1", "tiers", name), body, version=version)
    if as_json:
        print_json(tier)
    else:
        print_line(f"{tier['name']} is at version {tier['version']}")
