from typing import Any

import httpx
import pytest
from typer.testing import CliRunner

from tenant_service.commands import app

from .support import Answer


@pytest.fixture
def run(monkeypatch):
    """Runs a command against `answer`."""
    client = httpx.Client

    def running(answer: Answer, *arguments: str, typed: str | None = None):
        def respond(request: httpx.Request) -> httpx.Response:
            if request.url.path == "/oauth/token":
                return httpx.Response(200, json={"access_token": "t", "expires_in": 300})
            return answer(request)

        def made(**options: Any) -> httpx.Client:
            return client(transport=httpx.MockTransport(respond), **options)

        monkeypatch.setattr(httpx, "Client", made)
        monkeypatch.setattr("time.sleep", lambda _seconds: None)
        monkeypatch.setenv("TENANTRY_TENANT_URL", "http://tenant.test")
        monkeypatch.setenv("TENANTRY_CLIENT_ID", "operator")
        monkeypatch.setenv("TENANTRY_CLIENT_SECRET", "s3cret")
        return CliRunner().invoke(app, list(arguments), input=typed)

    return running
