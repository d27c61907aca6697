"""`tenantry tiers`."""

from pathlib import Path
from typing import Annotated, Any

import typer

from tenant_service.commands._arguments import AsJson, Everything, Limit, complete_tiers, noun
from tenant_service.commands._client import connect, path_of
from tenant_service.commands._output import print_differences, print_fields, print_json, print_line, print_page
from tenant_service.commands.tenants import read_document

app = noun("Tiers: what the tenants of one may use.")

Name = Annotated[str, typer.Argument(autocompletion=complete_tiers)]


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
    _show(tier, as_json=as_json)


@app.command()
def versions(name: Name, *, limit: Limit = 50, everything: Everything = False, as_json: AsJson = False) -> None:
    """List everything that a tier ever said, the newest first."""
    with connect() as api:
        page = api.page(path_of("v1", "tiers", name, "versions"), limit=limit, everything=everything)
    if as_json:
        print_json(page)
    else:
        rows = [(each["version"], each["isolation"], each["limits"], each["constraints"]) for each in page["items"]]
        print_page(page, ("version", "isolation", "limits", "constraints"), rows)


@app.command()
def diff(
    name: Name,
    since: Annotated[int, typer.Argument(metavar="FROM", min=1)],
    to: Annotated[int | None, typer.Argument(metavar="[TO]", min=1, help="Left out: the present version.")] = None,
    *,
    as_json: AsJson = False,
) -> None:
    """Show what differs between two versions."""
    with connect() as api:
        found = api.get(path_of("v1", "tiers", name, "versions", str(since), "diff"), to=to)
    if as_json:
        print_json(found)
    else:
        print_differences(found["items"])


@app.command()
def rollback(name: Name, version: Annotated[int, typer.Argument(min=1)], *, as_json: AsJson = False) -> None:
    """Say again, as a new version, what an older one said. It holds for every tenant of the tier at once."""
    with connect() as api:
        tier = api.post(path_of("v1", "tiers", name, "rollback"), {"version": version})
    _show(tier, as_json=as_json)


def _show(tier: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print_json(tier)
    else:
        print_line(f"{tier['name']} is at version {tier['version']}")
