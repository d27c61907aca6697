"""`tenantry audit`: read, keep and check the trail, and take a person out of it."""

import json
import sys
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any
from uuid import UUID

import typer

from tenant_service.commands._arguments import (
    AsJson,
    Everything,
    IdempotencyKey,
    Limit,
    OptionalReference,
    Reference,
    noun,
)
from tenant_service.commands._client import ControlPlane, connect, new_key, path_of, tenant_path
from tenant_service.commands._files import whole_file
from tenant_service.commands._output import note, print_json, print_line, print_page
from tenant_service.domain.audit_chain import Entry, Link
from tenant_service.domain.audit_trail import TrailCheck
from tenantry.cli import CommandFailed, Misused

app = noun("The audit trail: read it, keep it, check it, take a person out of it.")

Platform = Annotated[bool, typer.Option("--platform", help="The platform's own trail.")]
Action = Annotated[str | None, typer.Option(help="An action, or with a dot at its end the beginning of actions.")]
Actor = Annotated[str | None, typer.Option(help="Who did it.")]
Since = Annotated[str | None, typer.Option("--from", help="The first instant, as in 2026-01-31T00:00:00Z.")]
Until = Annotated[str | None, typer.Option("--to", help="The first instant after.")]


@app.command(name="list")
def list_entries(
    reference: OptionalReference = None,
    *,
    platform: Platform = False,
    action: Action = None,
    actor: Actor = None,
    since: Since = None,
    until: Until = None,
    limit: Limit = 50,
    everything: Everything = False,
    as_json: AsJson = False,
) -> None:
    """List what was done and by whom, the newest first."""
    with connect() as api:
        path = _trail(api, reference, platform=platform)
        wanted = {"action": action, "actor": actor, "from": since, "to": until}
        page = api.page(path, limit=limit, everything=everything, **wanted)
    if as_json:
        print_json(page)
        return
    rows = [
        (
            each["position"],
            each["occurred_at"],
            each["actor"]["subject"],
            each["action"],
            each["target"],
            each["detail"],
        )
        for each in page["items"]
    ]
    print_page(page, ("no.", "at", "by", "action", "target", "detail"), rows)


@app.command()
def export(
    reference: OptionalReference = None,
    *,
    platform: Platform = False,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", dir_okay=False, help="A file; left out: standard output.")
    ] = None,
    action: Action = None,
    actor: Actor = None,
    since: Since = None,
    until: Until = None,
) -> None:
    """Write entries with their hashes, the oldest first, a line of JSON each. All of a chain can be verified."""
    with connect() as api:
        path = f"{_trail(api, reference, platform=platform)}/export"
        wanted = {"action": action, "actor": actor, "from": since, "to": until}
        if output is None:
            api.download(path, sys.stdout.buffer.write, **wanted)
            sys.stdout.flush()
            return
        with whole_file(output) as out:
            api.download(path, out.write, **wanted)
    note(f"{output}: check it at any time with `tenantry audit verify --file {output}`")


@app.command()
def verify(
    reference: OptionalReference = None,
    *,
    everything: Annotated[bool, typer.Option("--all", help="Every chain of the platform.")] = False,
    file: Annotated[
        Path | None, typer.Option(exists=True, dir_okay=False, help="An export; no service is asked.")
    ] = None,
    expect: Annotated[str | None, typer.Option(help="The digest of an earlier time; another one is a failure.")] = None,
    as_json: AsJson = False,
) -> None:
    """Compute chains anew; ends with code 1 and the first broken row where one does not hold.

    Keep the digest elsewhere: it alone shows a history that was written anew, or cut at its end.
    """
    if [reference is not None, everything, file is not None].count(True) != 1:
        raise Misused("say one of REF, --all and --file")
    if file is not None:
        found = _verify_file(file)
    else:
        with connect() as api:
            path = "/v1/audit" if reference is None else _trail(api, reference, platform=False)
            found = api.get(f"{path}/verify")
    if as_json:
        print_json(found)
    elif found["ok"]:
        print_line(f"{found['chains']} chains, {found['entries']} entries: all hold")
        print_line(f"digest {found['digest']}")
    if not found["ok"]:
        first = found["broken"][0]
        raise CommandFailed(
            f"{len(found['broken'])} of {found['chains']} chains do not hold; chain {first['chain_id']} is broken at "
            f"position {first['position']}, entry {first['entry_id'] or '-'}: {first['reason']}",
            "compare it with an earlier export, and with a backup of the database",
        )
    if expect is not None and expect.strip().lower() != found["digest"]:
        raise CommandFailed(
            f"the digest is {found['digest']}, not {expect}",
            "entries were added since it was kept, or the history was written anew: compare with an earlier export",
        )


@app.command()
def erase(
    reference: Reference,
    value: Annotated[
        list[str] | None,
        typer.Argument(metavar="[VALUE]...", help="What names the person; without, a line each from standard input."),
    ] = None,
    *,
    idempotency_key: IdempotencyKey = None,
    as_json: AsJson = False,
) -> None:
    """Take a person's values out of the details of a tenant's entries. The chain holds, and says that it was done.

    Arguments stay in the history of a shell; standard input does not.
    """
    values = value or [line.strip() for line in sys.stdin if line.strip()]
    with connect() as api:
        path = f"{_trail(api, reference, platform=False)}/erasures"
        erased = api.post(path, {"values": values}, idempotency_key=new_key(idempotency_key))
    if as_json:
        print_json(erased)
    else:
        print_line(f"{erased['entries']} entries changed")


def _trail(api: ControlPlane, reference: str | None, *, platform: bool) -> str:
    if platform is (reference is not None):
        raise Misused("say REF or --platform")
    return path_of("v1", "audit") if reference is None else tenant_path(api.find_tenant(reference)["id"], "audit")


def _verify_file(file: Path) -> dict[str, Any]:
    """What the service says of chains, of those in an export. Raises `CommandFailed` for a line that is no entry."""
    check = TrailCheck()
    with file.open(encoding="utf-8", errors="replace") as lines:
        check.follow(_links(file, lines))
    found = check.verify_alone()
    if not found.chains:
        raise CommandFailed(f"{file} holds no entries", "`tenantry audit export REF --output FILE` writes them")
    return {
        "ok": not found.broken,
        "chains": found.chains,
        "entries": found.entries,
        "broken": [
            {
                "chain_id": str(each.chain_id),
                "position": each.first.position,
                "entry_id": None if each.first.entry_id is None else str(each.first.entry_id),
                "reason": each.first.reason,
            }
            for each in found.broken
        ],
        "digest": found.digest.hex(),
    }


def _links(file: Path, lines: Iterable[str]) -> Iterable[Link]:
    for number, line in enumerate(lines, 1):
        try:
            yield _link(json.loads(line))
        except (ValueError, KeyError, TypeError) as error:
            raise CommandFailed(f"{file}, line {number} is no entry of an export ({error!r})") from None


def _link(told: dict[str, Any]) -> Link:
    actor = told["actor"]
    if not (
        isinstance(told["position"], int) and isinstance(told["detail"], dict) and isinstance(told["context"], dict)
    ):
        raise TypeError("position, detail or context is of another type")
    entry = Entry(
        id=UUID(told["id"]),
        chain_id=UUID(told["chain_id"]),
        occurred_at=datetime.fromisoformat(told["occurred_at"]),
        actor=actor["subject"],
        actor_kind=actor["kind"],
        credential_id=actor["credential_id"],
        impersonator=actor["impersonator"],
        action=told["action"],
        target=told["target"],
        detail=told["detail"],
        request_id=told["request_id"],
        context=told["context"],
    )
    return Link(entry, told["position"], bytes.fromhex(told["content_hash"]), bytes.fromhex(told["hash"]))
