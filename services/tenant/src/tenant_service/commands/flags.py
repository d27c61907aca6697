"""`tenantry flags`: features that are on for some."""

from pathlib import Path
from typing import Annotated, Any

import typer

from tenant_service.commands._arguments import AsJson, Everything, Limit, Reference, complete_flags, noun
from tenant_service.commands._client import ABSENT, connect, path_of, tenant_path
from tenant_service.commands._output import print_fields, print_json, print_line, print_page
from tenant_service.commands.tenants import read_document
from tenantry.cli import Misused

app = noun("Feature flags: who has what, and why.")

Name = Annotated[str, typer.Argument(autocompletion=complete_flags)]
_HOW_MANY = 100.0


@app.command(name="list")
def list_flags(*, limit: Limit = 50, everything: Everything = False, as_json: AsJson = False) -> None:
    """List flags by name."""
    with connect() as api:
        page = api.page("/v1/flags", limit=limit, everything=everything)
    if as_json:
        print_json(page)
        return
    rows = [
        (each["name"], each["version"], each["enabled"], each["default"], _rollout(each), each["tiers"] or None)
        for each in page["items"]
    ]
    print_page(page, ("name", "version", "enabled", "default", "rollout", "tiers"), rows)


@app.command()
def get(name: Name, *, as_json: AsJson = False) -> None:
    """Show a flag."""
    with connect() as api:
        flag = api.get(path_of("v1", "flags", name))
    if as_json:
        print_json(flag)
    else:
        print_fields(flag)


@app.command()
def of(reference: Reference, *, limit: Limit = 50, everything: Everything = False, as_json: AsJson = False) -> None:
    """Show what each flag is for a tenant now, and why. `config set REF features` gives a tenant its own."""
    with connect() as api:
        page = api.page(tenant_path(api.find_tenant(reference)["id"], "features"), limit=limit, everything=everything)
    if as_json:
        print_json(page)
        return
    rows = [(each["name"], each["value"], each["reason"], _source(each["source"])) for each in page["items"]]
    print_page(page, ("name", "is", "because of", "from"), rows)


@app.command(name="set")
def set_flag(
    name: Name,
    *,
    file: Annotated[
        Path | None, typer.Option("--file", "-f", exists=True, dir_okay=False, help="JSON file of the whole flag.")
    ] = None,
    on: Annotated[bool | None, typer.Option("--on/--off", help="For everybody else.", show_default=False)] = None,
    enabled: Annotated[
        bool | None, typer.Option("--enabled/--disabled", help="Disabled: the default for all.", show_default=False)
    ] = None,
    percentage: Annotated[float | None, typer.Option(min=0, max=_HOW_MANY, help="Of tenants that have it.")] = None,
    description: Annotated[str | None, typer.Option()] = None,
    as_json: AsJson = False,
) -> None:
    """Define a flag, or change what is said of it; what is not said stays. A file replaces all of it.

    What `get --json` prints can be edited and sent back: its version then has to be the present one.
    """
    said = {"default": on, "enabled": enabled, "description": description}
    changes: dict[str, Any] = {field: value for field, value in said.items() if value is not None}
    if percentage is not None:
        changes["rollout"] = {"percentage": percentage}
    if (file is not None) is bool(changes):
        raise Misused("say what to change, or --file")
    with connect() as api:
        path = path_of("v1", "flags", name)
        present = read_document(file) if file is not None else api.get_or_none(path)
        body, version = dict(present or {}), ABSENT if present is None else present.get("version")
        for owned in ("name", "version"):
            body.pop(owned, None)
        if percentage is not None and body.get("rollout"):
            changes["rollout"] = {**body["rollout"], "percentage": percentage}
        flag = api.write("PUT", path, body | changes, version=version)
    if as_json:
        print_json(flag)
    else:
        print_line(f"{flag['name']} is at version {flag['version']}")


def _rollout(flag: dict[str, Any]) -> str | None:
    rollout = flag["rollout"]
    return None if rollout is None else f"{rollout['percentage']} % {rollout['variant']}"


def _source(source: dict[str, Any] | None) -> str | None:
    return None if source is None else " ".join(str(source[each]) for each in ("layer", "name") if source[each])
