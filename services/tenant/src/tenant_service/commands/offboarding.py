"""What `tenantry tenants` does about a tenant's end, and exports, which may be made at any time."""

import hashlib
from pathlib import Path, PurePosixPath
from typing import Annotated, Any

import typer

from tenant_service.commands._arguments import (
    WAIT_SECONDS,
    AsJson,
    IdempotencyKey,
    Note,
    OptionalReference,
    Reference,
    Timeout,
    Wait,
    Yes,
    confirm,
)
from tenant_service.commands._client import ControlPlane, connect, new_key, tenant_path
from tenant_service.commands._files import make_folder, whole_file
from tenant_service.commands._output import note as say
from tenant_service.commands._output import print_fields, print_json, print_line, print_table
from tenant_service.commands._waiting import follow_run
from tenant_service.commands.tenants import show_change
from tenantry.cli import CommandFailed, Misused

app = typer.Typer()


@app.command()
def offboard(
    reference: Reference,
    *,
    grace_days: Annotated[int, typer.Option(min=0, help="How long all can be taken back.")] = 30,
    export: Annotated[
        bool | None,
        typer.Option("--export/--no-export", help="Left out: where there is a store for it.", show_default=False),
    ] = None,
    note: Note = "",
    yes: Yes = False,
    idempotency_key: IdempotencyKey = None,
    as_json: AsJson = False,
) -> None:
    """Stop a tenant; its data is deleted when the grace has ended."""
    with connect() as api:
        tenant = api.find_tenant(reference)
        confirm(tenant["slug"], f"offboard it with a grace of {grace_days} days", yes=yes)
        body = {"grace_days": grace_days, "export": export, "note": note}
        tenant = api.post(tenant_path(tenant["id"], "offboard"), body, idempotency_key=new_key(idempotency_key))
    show_change(tenant, as_json=as_json)
    if not as_json:
        say(f"the grace ends at {tenant['grace_ends_at']}; until then `tenantry tenants cancel-offboarding` undoes it")


@app.command(name="cancel-offboarding")
def cancel_offboarding(reference: Reference, *, as_json: AsJson = False) -> None:
    """Take an offboarding back before its grace ends."""
    with connect() as api:
        tenant = api.post(tenant_path(api.find_tenant(reference)["id"], "cancel-offboarding"))
    show_change(tenant, as_json=as_json)


@app.command()
def purge(
    reference: Reference,
    *,
    wait: Wait = False,
    timeout: Timeout = WAIT_SECONDS,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Delete the data of a tenant whose grace has ended; nothing brings it back."""
    with connect() as api:
        tenant = api.find_tenant(reference)
        confirm(tenant["slug"], "delete all of its data for good", yes=yes)
        purged = api.post(tenant_path(tenant["id"], "purge"))
        if not wait:
            show_change(purged, as_json=as_json)
            return
        follow_run(api, tenant, lambda run: run["kind"] == "offboard", seconds=timeout)
        _show_certificate(api, tenant, as_json=as_json)


@app.command(name="purge-again")
def purge_again(
    reference: OptionalReference = None,
    *,
    since: Annotated[
        str | None, typer.Option(help="Every tenant that was purged since then, as in 2026-01-31T00:00:00Z.")
    ] = None,
    wait: Wait = False,
    timeout: Timeout = WAIT_SECONDS,
    as_json: AsJson = False,
) -> None:
    """Delete what a restored backup has brought back of purged tenants: one, or all since the backup was taken."""
    if (reference is None) is (since is None):
        raise Misused("say REF or --since")
    with connect() as api:
        if reference is None:
            asked = api.post("/v1/purges", {"purged_since": since})
            if as_json:
                print_json(asked)
                return
            print_line(f"every service is asked to delete what it has of {asked['tenants']} tenants")
            say("`tenantry audit list --platform --action tenant.purged_again` shows what had come back")
            return
        tenant = api.find_tenant(reference)
        run = api.post(tenant_path(tenant["id"], "purge-again"))
        if wait:
            run = follow_run(api, tenant, lambda each: each["id"] == run["id"], seconds=timeout)
    if as_json:
        print_json(run)
    else:
        print_line(f"run {run['id']} is {run['state']}")


@app.command()
def certificate(reference: Reference, *, as_json: AsJson = False) -> None:
    """Show what was deleted, and what is kept and why."""
    with connect() as api:
        _show_certificate(api, api.find_tenant(reference), as_json=as_json)


@app.command()
def export(
    reference: Reference,
    *,
    wait: Wait = False,
    to: Annotated[
        Path | None, typer.Option(file_okay=False, help="Wait, and put the files here, each checked by its SHA-256.")
    ] = None,
    timeout: Timeout = WAIT_SECONDS,
    idempotency_key: IdempotencyKey = None,
    as_json: AsJson = False,
) -> None:
    """Have every service write a tenant's data into files."""
    if to is not None:
        make_folder(to)  # before the work is done
    with connect() as api:
        tenant = api.find_tenant(reference)
        run = api.post(tenant_path(tenant["id"], "export"), idempotency_key=new_key(idempotency_key))
        if wait or to is not None:
            follow_run(api, tenant, lambda each: each["id"] == run["id"], seconds=timeout)
        made = api.get(tenant_path(tenant["id"], "exports", run["id"]))
        for file in made["files"] if to is not None else ():
            _fetch(api, tenant["id"], made["id"], file, to or Path())
    if as_json:
        print_json(made)
        return
    print_line(f"export {made['id']} is {made['state']}")
    if made["files"]:
        rows = [(each["service"], each["table"], each["rows"], each["bytes"], each["file"]) for each in made["files"]]
        print_table(("service", "table", "rows", "bytes", "file"), rows)
    if to is not None:
        say(f"{len(made['files'])} files are in {to}, their digests are right")


def _fetch(api: ControlPlane, tenant_id: str, export_id: str, file: dict[str, Any], to: Path) -> None:
    """One file to `to`/service/file; what is there is whole or not there. Raises `CommandFailed` for a wrong digest."""
    # The service's words name no place outside of the folder.
    folder = to / PurePosixPath(file["service"]).name
    make_folder(folder)
    digest = hashlib.sha256()
    say(f"{file['service']} {file['table']}: {file['bytes']} bytes")
    with whole_file(folder / PurePosixPath(file["file"]).name) as out:

        def write(piece: bytes) -> None:
            out.write(piece)
            digest.update(piece)

        api.download(tenant_path(tenant_id, "exports", export_id, "files", file["service"], file["file"]), write)
        if digest.hexdigest() != file["sha256"]:
            raise CommandFailed(f"{file['file']} is not what was exported: its SHA-256 differs", "make another export")


def _show_certificate(api: ControlPlane, tenant: dict[str, Any], *, as_json: bool) -> None:
    found = api.get_or_none(tenant_path(tenant["id"], "purge-certificate"))
    if found is None:
        raise CommandFailed(
            f"{tenant['slug']} has no certificate: it is {tenant['status']}",
            f"`tenantry tenants runs {tenant['slug']}` shows how far its end is",
        )
    if as_json:
        print_json(found)
        return
    certified = found["certificate"]
    print_fields(
        {
            "tenant": f"{tenant['slug']} {certified['tenant_id']}",
            "requested_by": certified["requested_by"],
            "purge_began_at": certified["purge_began_at"],
            "ended_at": certified["ended_at"],
            "keys_destroyed": ", ".join(certified["keys_destroyed"]) or None,
            "services": ", ".join(certified["services"]) or None,
            "kept": len(certified["exceptions"]),
            "digest": found["digest"],
        }
    )
    for each in certified["exceptions"]:
        print_line("kept: " + ", ".join(f"{name} {value}" for name, value in each.items()))
