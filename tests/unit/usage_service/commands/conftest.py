from __future__ import annotations

import asyncio

import httpx
import pytest
from typer.testing import CliRunner

from usage_service.commands import app

from .support import URL, Service


@pytest.fixture(autouse=True)
def slept(monkeypatch):
    """Pauses are noted and not waited for."""
    pauses: list[float] = []

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)

    monkeypatch.setattr(asyncio, "sleep", sleep)
    return pauses


@pytest.fixture
def terminal(tmp_path, monkeypatch):
    """Commands in an empty directory, against a service that is a transport."""
    service = Service()
    client = httpx.AsyncClient
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        httpx, "AsyncClient", lambda **options: client(transport=httpx.MockTransport(service), **options)
    )
    names = {"USAGE_URL": URL, "TENANT_URL": "http://tenant.test", "CLIENT_ID": "id", "CLIENT_SECRET": "s"}
    environment = {f"TENANTRY_{name}": value for name, value in names.items()}

    def invoke(*arguments: str, code: int = 0, typed: bytes = b"", group: str = "import"):
        done = CliRunner().invoke(app, ["usage", group, *arguments], env=environment, input=typed)
        assert done.exit_code == code, (done.output, done.exception)
        return done.stdout

    invoke.service = service  # type: ignore[attr-defined]
    return invoke
