"""A service that is a transport and answers from a table."""

from collections.abc import Callable
from typing import Any
from uuid import UUID

import httpx

from tenant_service.commands._client import ControlPlane, Credentials

TENANT: dict[str, Any] = {
    "id": str(UUID(int=7)),
    "external_id": None,
    "slug": "acme",
    "name": "Acme \x1b[31m[red]",
    "status": "active",
    "read_only": True,
    "moving": False,
    "suspension_reasons": [],
    "trial_ends_at": None,
    "legal_hold": False,
    "grace_ends_at": None,
    "tier": "standard",
    "region": "eu-1",
    "placement": None,
    "test_clock": None,
    "version": 1,
    "created_at": "2026-01-01T00:00:00Z",
    "activated_at": None,
    "metadata": {},
}

Answer = Callable[[httpx.Request], httpx.Response]


def problem(status: int, kind: str, **more: object) -> httpx.Response:
    return httpx.Response(status, json={"type": kind, "title": "No", "status": status, **more})


def plane(answer: Answer) -> ControlPlane:
    def respond(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/oauth/token":
            return httpx.Response(200, json={"access_token": "t", "expires_in": 300})
        return answer(request)

    http = httpx.Client(base_url="http://tenant.test", transport=httpx.MockTransport(respond))
    return ControlPlane(http, Credentials("http://tenant.test", "operator", "secret"), lambda _seconds: None)
