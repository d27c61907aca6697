"""What the tenancy middleware adds to a request: identification, status, binding, metrics, metering.

The application behind it is the smallest there is, so the difference to the same application alone is the middleware.
Warm: the token has been verified before, and the request is metered into a real spool file. Cold: every token is new,
which adds one check of a signature. Limited: with a rate that is not used up, and refused: with one that is.
"""

from __future__ import annotations

import gc
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from joserfc import jwt
from joserfc.jwk import ECKey
from report import Row, Servers, percentiles, row
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tenantry import Isolation, LocalDirectory, SystemClock, Tenant, TenantId, TenantStatus, Tier, uuid7
from tenantry.http import RequestLimiting, RequestMetering, TenancyMiddleware
from tenantry.identity import CredentialStore, Identifier, KeySet, TokenVerifier
from tenantry.limits import FairGate, Limiter
from tenantry.metering import MeteringClient, Spool
from tenantry.testing import TenantFactory

ISSUER = "https://tenant.bench"
TENANTS = 1_000
ROUNDS = 5
REQUESTS = 4_000
COLD_REQUESTS = 1_000
GOAL_MICROSECONDS = 40.0
REFUSED_GOAL_MICROSECONDS = 100.0

_START = {"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]}
_BODY = {"type": "http.response.body", "body": b"ok"}


async def bare(scope: Scope, receive: Receive, send: Send) -> None:
    await send(dict(_START))
    await send(dict(_BODY))


async def run(servers: Servers) -> list[Row]:
    """Microseconds a request that the middleware adds, over the bare application in the same run."""
    key = ECKey.generate_key("P-256", {"kid": "bench"})
    make = TenantFactory()
    tenants = [make(id=TenantId(uuid7()), isolation=Isolation.POOL, status=TenantStatus.ACTIVE) for _ in range(TENANTS)]
    with TemporaryDirectory(prefix="bench-spool-") as directory:
        spool = Spool(Path(directory), 4 << 30, "drop")
        try:
            wrapped = _wrap(LocalDirectory.of(tenants), KeySet({"keys": [key.as_dict(private=False)]}), spool)
            unmetered = _wrap(LocalDirectory.of(tenants), KeySet({"keys": [key.as_dict(private=False)]}), None)
            warm_scopes = [_scope(_token(key, tenant.id)) for tenant in tenants[:200]]
            rounds = [
                (
                    await _measure(bare, warm_scopes, REQUESTS),
                    await _measure(unmetered, warm_scopes, REQUESTS),
                    await _measure(wrapped, warm_scopes, REQUESTS),
                )
                for _ in range(ROUNDS)
            ]
            limited = [await _measure(_limit(tenants, key, spool, 1e6), warm_scopes, REQUESTS) for _ in range(ROUNDS)]
            refused = [await _measure(_limit(tenants, key, spool, 0.001), warm_scopes, REQUESTS) for _ in range(ROUNDS)]
            cold_scopes = [_scope(_token(key, tenants[n % TENANTS].id)) for n in range(COLD_REQUESTS)]
            cold = await _measure(wrapped, cold_scopes, COLD_REQUESTS, warm_up=False)
        finally:
            spool.close()
    alone = median(each.wall for each, _, _ in rounds)
    return [
        row(
            "middleware",
            median(metered.wall - base.wall for base, _, metered in rounds),
            "us/request",
            goal_us=GOAL_MICROSECONDS,
            bare_us=round(alone, 2),
            without_metering_us=round(median(plain.wall - base.wall for base, plain, _ in rounds), 2),
            cpu_us=round(median(metered.cpu - base.cpu for base, _, metered in rounds), 2),
            requests=ROUNDS * REQUESTS,
            **percentiles([sample for _, _, metered in rounds for sample in metered.samples]),
        ),
        row(
            "middleware_limited",
            median(measured.wall for measured in limited) - alone,
            "us/request",
            cpu_us=round(median(measured.cpu for measured in limited), 2),
            requests=ROUNDS * REQUESTS,
            **percentiles([sample for measured in limited for sample in measured.samples]),
        ),
        row(
            "middleware_refused",
            median(measured.wall for measured in refused),
            "us/request",
            goal_us=REFUSED_GOAL_MICROSECONDS,
            cpu_us=round(median(measured.cpu for measured in refused), 2),
            requests=ROUNDS * REQUESTS,
            **percentiles([sample for measured in refused for sample in measured.samples]),
        ),
        row(
            "middleware_cold_token",
            cold.wall - alone,
            "us/request",
            cpu_us=round(cold.cpu, 2),
            requests=COLD_REQUESTS,
            **percentiles(cold.samples),
        ),
    ]


def _limit(tenants: list[Tenant], key: ECKey, spool: Spool, rate: float) -> ASGIApp:
    """The metered application, where each tenant may send `rate` requests a second."""
    tier = Tier(name=tenants[0].tier, version=1, limits={"requests": {"default": {"rate": rate}}, "concurrency": 50})
    directory = LocalDirectory.of(tenants, [tier])
    limiter = Limiter("bench", directory, gate=FairGate(256, max_waiting=512, wait=2.0))
    keys = KeySet({"keys": [key.as_dict(private=False)]})
    return _wrap(directory, keys, spool, limiting=RequestLimiting(limiter))


def _wrap(
    directory: LocalDirectory, keys: KeySet, spool: Spool | None, limiting: RequestLimiting | None = None
) -> ASGIApp:
    client = None if spool is None else MeteringClient(spool, "bench", SystemClock())
    identifier = Identifier(
        directory=directory,
        tokens=TokenVerifier(keys, issuer=ISSUER, audience="bench"),
        credentials=CredentialStore(),
    )
    metering = None if client is None else RequestMetering(client.record)
    return TenancyMiddleware(
        bare, service="bench", directory=directory, identifier=identifier, metering=metering, limiting=limiting
    )


def _token(key: ECKey, tenant_id: TenantId) -> str:
    now = int(time.time())
    claims = {
        "iss": ISSUER, "aud": "bench", "sub": "bench", "scope": "tenant:write", "kind": "user", "jti": str(uuid7()),
        "iat": now, "exp": now + 600, "tenant_id": str(tenant_id),
    }  # fmt: skip
    return jwt.encode({"alg": "ES256", "kid": "bench"}, claims, key)


def _scope(token: str) -> Scope:
    """What a server hands over for a GET of a browser's client, with the usual headers."""
    headers = [
        (b"host", b"app.example.com"), (b"user-agent", b"bench/1.0"), (b"accept", b"*/*"),
        (b"accept-encoding", b"gzip"), (b"connection", b"keep-alive"),
        (b"authorization", b"Bearer " + token.encode()),
    ]  # fmt: skip
    return {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "GET", "scheme": "http",
        "path": "/v1/documents", "raw_path": b"/v1/documents", "query_string": b"limit=50", "root_path": "",
        "headers": headers, "server": ("127.0.0.1", 8004), "client": ("127.0.0.1", 50_000),
    }  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Measured:
    """Microseconds: the median request, the processor time of a request on average, and each request."""

    wall: float
    cpu: float
    samples: list[float]


async def _measure(app: ASGIApp, scopes: list[Scope], requests: int, *, warm_up: bool = True) -> _Measured:
    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Message) -> None:
        pass

    if warm_up:
        for scope in scopes:
            await app(dict(scope), receive, send)
    samples = []
    gc.collect()
    gc.disable()  # its pauses belong to the whole process, not to one of the applications
    cpu = time.thread_time_ns()
    try:
        for n in range(requests):
            scope = dict(scopes[n % len(scopes)])
            begun = time.perf_counter_ns()
            await app(scope, receive, send)
            samples.append((time.perf_counter_ns() - begun) / 1_000)
    finally:
        cpu = time.thread_time_ns() - cpu
        gc.enable()
    return _Measured(median(samples), cpu / requests / 1_000, samples)
