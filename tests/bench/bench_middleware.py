"""What the tenancy middleware adds to a request: identification, status check, context, metrics and a metered event.

The application behind it does nothing; its own time is subtracted. The limit is the 40 microseconds that were set. Cold
is the first request of a token, whose signature is checked.
"""

from __future__ import annotations

import tempfile
import time
from datetime import UTC, datetime
from statistics import median
from typing import TYPE_CHECKING, Any

from joserfc import jwt
from joserfc.jwk import ECKey
from report import Row, Servers, percentiles, row

from tenantry import LocalDirectory, Tenant, TenantId, TenantStatus, uuid7
from tenantry.http import RequestMetering, TenancyMiddleware
from tenantry.identity import CredentialStore, Identifier, KeySet, TokenVerifier
from tenantry.metering import MeteringClient, Spool

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

LIMIT_MICROSECONDS = 40.0
TENANTS = 1_000
TOKENS = 500
REQUESTS = 5_000
RUNS = 5
ISSUER, AUDIENCE = "http://127.0.0.1:8001", "app"


class Route:
    path_format = "/v1/documents/{document_id}"


async def run(_: Servers) -> list[Row]:
    key = ECKey.generate_key("P-256", parameters={"kid": "bench"})
    now = datetime.now(UTC)
    tenants = [
        Tenant(
            id=TenantId(uuid7()),
            slug=f"bench-{number}",
            name="Bench",
            status=TenantStatus.ACTIVE,
            tier="standard",
            version=1,
            created_at=now,
        )
        for number in range(TENANTS)
    ]
    tokens = [_token(key, tenants[number % TENANTS]) for number in range(TOKENS)]
    directory = LocalDirectory.of(tenants)
    verifier = TokenVerifier(KeySet({"keys": [key.as_dict(private=False)]}), issuer=ISSUER, audience=AUDIENCE)
    identifier = Identifier(directory=directory, tokens=verifier, credentials=CredentialStore())
    with tempfile.TemporaryDirectory() as state:
        spool = Spool(state)
        try:
            metering = RequestMetering(MeteringClient(spool, "app").record)
            metered, unmetered = (
                TenancyMiddleware(_application, service="bench", directory=directory, identifier=identifier, metering=m)
                for m in (metering, None)
            )
            cold = await _measure(metered, tokens)
            bare = median([median(await _measure(_application, tokens)) for _ in range(RUNS)])
            warm = [await _measure(metered, tokens * (REQUESTS // TOKENS)) for _ in range(RUNS)]
            without = median([median(await _measure(unmetered, tokens)) for _ in range(RUNS)])
        finally:
            spool.close()
    samples = [sample - bare for samples in warm for sample in samples]
    return [
        row(
            "middleware",
            median([median(samples) for samples in warm]) - bare,
            "us/request",
            limit=LIMIT_MICROSECONDS,
            cold=round(median(cold) - bare, 1),
            without_metering=round(without - bare, 1),
            **percentiles(samples),
        )
    ]


def _token(key: ECKey, tenant: Tenant) -> str:
    issued_at = int(time.time())
    claims = {
        "iss": ISSUER,
        "aud": AUDIENCE,
        "sub": f"user-{tenant.slug}",
        "jti": str(uuid7()),
        "iat": issued_at,
        "exp": issued_at + 600,
        "scope": "tenant:read tenant:write",
        "kind": "user",
        "tenant_id": str(tenant.id),
    }
    return jwt.encode({"alg": "ES256", "kid": "bench"}, claims, key)


async def _application(scope: Scope, receive: Receive, send: Send) -> None:
    scope["route"] = Route
    await receive()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]})
    await send({"type": "http.response.body", "body": b"{}"})


async def _measure(app: ASGIApp, tokens: list[str]) -> list[float]:
    """Microseconds of each request."""
    taken = []
    for token in tokens:
        scope = _scope(token)
        started = time.perf_counter_ns()
        await app(scope, _receive, _send)
        taken.append((time.perf_counter_ns() - started) / 1000)
    return taken


def _scope(token: str) -> dict[str, Any]:
    """As uvicorn makes it for a small client."""
    return {
        "type": "http",
        "http_version": "1.1",
        "method": "GET",
        "path": "/v1/documents/0198a000-0000-7000-8000-000000000000",
        "query_string": b"limit=20",
        "root_path": "",
        "scheme": "http",
        "headers": [
            (b"host", b"127.0.0.1:8004"),
            (b"accept", b"*/*"),
            (b"accept-encoding", b"gzip, deflate"),
            (b"connection", b"keep-alive"),
            (b"user-agent", b"bench"),
            (b"authorization", b"Bearer " + token.encode()),
        ],
    }


async def _receive() -> Message:
    return {"type": "http.request", "body": b"", "more_body": False}


async def _send(_: Message) -> None: ...
