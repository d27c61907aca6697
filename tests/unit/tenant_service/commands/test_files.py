"""Files that commands write, and exports that are checked without a service."""

import hashlib
import json
from datetime import UTC, datetime
from uuid import UUID

import httpx
import pytest

from tenant_service.commands._files import whole_file
from tenant_service.domain.audit_chain import Entry, before_the_first, content_hash, link

from .support import TENANT


@pytest.mark.parametrize("right", [True, False])
def test_a_downloaded_file_is_whole_and_right_or_not_there(run, tmp_path, right):
    content = b"rows"
    file = {
        "service": "app",
        "table": "document",
        "rows": 1,
        "file": "document.ndjson.gz",
        "bytes": 4,
        "sha256": hashlib.sha256(content if right else b"others").hexdigest(),
    }
    export = {"id": "e", "kind": "export", "state": "succeeded", "steps": [], "files": [file]}

    def answer(request: httpx.Request) -> httpx.Response:
        if "/files/" in request.url.path:
            return httpx.Response(200, content=content)
        if request.url.path.endswith("/runs"):
            return httpx.Response(200, json={"items": [export], "next_cursor": None})
        if "/export" in request.url.path:
            return httpx.Response(200, json=export)
        return httpx.Response(200, json=TENANT)

    result = run(answer, "tenants", "export", TENANT["id"], "--to", str(tmp_path))
    assert result.exit_code == (0 if right else 1)
    assert [path.name for path in (tmp_path / "app").iterdir()] == (["document.ndjson.gz"] if right else [])


def exported(chain_id: UUID, length: int) -> list[dict[str, object]]:
    """A chain as the service exports it."""
    lines, previous = [], before_the_first(chain_id)
    for position in range(1, length + 1):
        at = datetime(2026, 1, position, tzinfo=UTC)
        entry = Entry(
            UUID(int=position), chain_id, at, "operator", "operator", "c", None, "a.b", "t", {"n": 1.5}, None, {}
        )
        content = content_hash(entry)
        previous = link(previous, position, content)
        lines.append(
            {
                "chain_id": str(chain_id),
                "position": position,
                "id": str(entry.id),
                "occurred_at": at.isoformat(),
                "actor": {"subject": "operator", "kind": "operator", "credential_id": "c", "impersonator": None},
                "action": "a.b",
                "target": "t",
                "detail": {"n": 1.5},
                "request_id": None,
                "context": {},
                "content_hash": content.hex(),
                "hash": previous.hex(),
            }
        )
    return lines


def test_an_export_is_checked_without_any_service(run, tmp_path):
    file = tmp_path / "trail.ndjson"
    # Two trails in one file, whatever stands first.
    lines = exported(UUID(int=9), 3) + exported(UUID(int=5), 2)

    def verify(*more: str, of: list[dict[str, object]] = lines):
        file.write_text("".join(json.dumps(line) + "\n" for line in of))
        return run(lambda _request: httpx.Response(500), "audit", "verify", "--file", str(file), "--json", *more)

    found = json.loads(verify().stdout)
    assert (found["ok"], found["chains"], found["entries"]) == (True, 2, 5)
    assert verify("--expect", found["digest"]).exit_code == 0

    forged = verify(of=[*lines[:1], {**lines[1], "detail": {"n": 2}}, *lines[2:]])
    assert forged.exit_code == 1
    assert "position 2" in forged.stderr
    assert str(UUID(int=2)) in forged.stderr
    assert "position 2" in verify(of=[lines[0], *lines[2:]]).stderr
    # What is cut at its end holds; only the digest that was kept shows it.
    assert verify(of=lines[:-1]).exit_code == 0
    assert verify("--expect", found["digest"], of=lines[:-1]).exit_code == 1


@pytest.mark.parametrize("line", ["{", "{}", '"text"', "[]"])
def test_a_line_that_is_no_entry_is_named(run, tmp_path, line):
    file = tmp_path / "trail.ndjson"
    file.write_text(line + "\n")
    result = run(lambda _request: httpx.Response(500), "audit", "verify", "--file", str(file))
    assert result.exit_code == 1
    assert "line 1" in result.stderr


def test_a_file_that_cannot_be_written_is_said_before_the_work_is_done(run, tmp_path):
    (tmp_path / "file").write_text("")
    asked = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request.method)
        if request.url.path == "/v1/tenants/acme":
            return httpx.Response(200, json=TENANT)
        if request.url.path == "/v1/tenants":
            return httpx.Response(200, json={"items": [TENANT], "next_cursor": None})
        return httpx.Response(200, text="{}\n")

    for arguments, code in (
        (["tenants", "export", "acme", "--to", str(tmp_path / "file" / "below")], 2),
        (["audit", "export", "acme", "--output", str(tmp_path / "none" / "x")], 1),
        (["audit", "export", "acme", "--output", str(tmp_path / "file" / "x")], 1),
    ):
        result = run(answer, *arguments)
        assert (result.exit_code, result.exception.__class__) == (code, SystemExit)
        assert "error: " in result.stderr
        assert "next: name a f" in result.stderr
    assert "POST" not in asked


def test_a_download_that_breaks_leaves_nothing(tmp_path):
    path = tmp_path / "trail"
    path.write_text("earlier")

    def broken() -> None:
        with whole_file(path) as out:
            out.write(b"half")
            raise ValueError("cut")

    with pytest.raises(ValueError, match="cut"):
        broken()
    assert [each.name for each in tmp_path.iterdir()] == ["trail"]
    assert path.read_text() == "earlier"
