"""Limits where requests come in: refused before anything is read, told in headers, places given back."""

import asyncio
import time

import pytest
from local_state import GivenState
from starlette.responses import StreamingResponse
from starlette.websockets import WebSocket

from tenantry import Operation, Tenancy, TenancySettings, Tier
from tenantry.http import RequestLimiting, RequestMetering, by_length
from tenantry.limits import FairGate, Limiter, RefusalPace


@pytest.fixture
def gate():
    return FairGate(4, max_waiting=4, wait=5.0, reserve=0)


@pytest.fixture
def limiter(directory, gate):
    # Time stands still: what is used up stays used up.
    return Limiter("things", directory, gate=gate, monotonic_ns=lambda: 0)


@pytest.fixture
def publish(directory):
    versions = iter(range(1, 100))
    return lambda **limits: directory.upsert_tier(Tier(name="standard", version=next(versions), limits=limits))


@pytest.fixture
def limited(make_app, limiter):
    return lambda costs=None, **options: make_app(limiting=RequestLimiting(limiter, costs), **options)


def of_b(issuer, b):
    return issuer.bearer(tenant_id=str(b.id))


async def test_a_refusal_is_a_problem_that_says_when_to_come_back(limited, client_of, issuer, publish, b):
    publish(requests={"read": {"rate": 0.5, "burst": 2}})
    async with client_of(limited()) as client:
        for left in (1, 0):
            served = await client.get("/v1/things/1", headers=issuer.bearer())
            assert served.status_code == 200
            assert served.headers["RateLimit-Policy"] == '"read";q=2;w=4'
            assert served.headers["RateLimit"].startswith(f'"read";r={left};t=')
        refused = await client.get("/v1/things/1", headers=issuer.bearer())
        assert refused.status_code == 429
        assert refused.headers["content-type"] == "application/problem+json"
        assert refused.json()["type"] == "rate-limited"
        assert refused.headers["Retry-After"] == "2"
        assert refused.headers["RateLimit"] == '"read";r=0;t=2'
        assert (await client.post("/v1/things/1", headers=issuer.bearer())).status_code == 200
        assert (await client.get("/v1/things/1", headers=of_b(issuer, b))).status_code == 200


async def test_who_asks_on_and_on_is_refused_at_a_pace(make_app, limiter, client_of, issuer, publish, b):
    publish(requests={"read": {"rate": 0.1, "burst": 1}})
    app = make_app(limiting=RequestLimiting(limiter, pace=RefusalPace(at_once=1)))
    async with client_of(app) as client:
        started = time.monotonic()
        statuses = [(await client.get("/v1/things/1", headers=issuer.bearer())).status_code for _ in range(42)]
        assert statuses == [200] + [429] * 41
        assert time.monotonic() - started >= 0.39  # all but the first refusal a hundredth of a second after another
        asked = asyncio.create_task(client.get("/v1/things/1", headers=issuer.bearer()))
        assert (await client.get("/v1/things/1", headers=of_b(issuer, b))).status_code == 200
        assert (await asked).status_code == 429


async def test_other_spellings_of_the_tenant_share_its_bucket(limited, client_of, issuer, publish, a):
    """Headers in any case, external ids, other tokens, HEAD for GET: the limit is the tenant's."""
    publish(requests={"default": {"rate": 0.1, "burst": 5}})
    spellings = [
        issuer.bearer(),
        issuer.bearer(sub="another", jti="another"),
        {"AUTHORIZATION": issuer.bearer()["Authorization"]},
        {**issuer.bearer(), "X-Tenant-ID": str(a.id).upper()},
        {**issuer.bearer(), "x-tenant-id": a.external_id},
    ]
    async with client_of(limited()) as client:
        statuses = [(await client.get("/v1/things/1", headers=spellings[n % 5])).status_code for n in range(50)]
        assert statuses.count(200) == 5
        assert statuses.count(429) == 45
        assert (await client.head("/v1/things/1", headers=issuer.bearer())).status_code == 429
        assert (await client.post("/v1/things/1", headers=issuer.bearer())).status_code == 429


async def test_a_race_at_the_limit_lets_exactly_the_burst_pass(limited, client_of, issuer, publish):
    publish(requests={"read": {"rate": 0.1, "burst": 20}})
    keys = [issuer.bearer(sub=f"user-{n}", jti=str(n)) for n in range(10)]
    async with client_of(limited()) as client:
        answers = await asyncio.gather(*(client.get("/v1/things/1", headers=keys[n % 10]) for n in range(200)))
    assert sum(answer.status_code == 200 for answer in answers) == 20


async def test_a_batch_costs_by_its_size(limited, client_of, issuer, publish):
    publish(requests={"write": {"rate": 0.1, "burst": 10}})
    costs = {"POST /v1/things/{thing}": by_length(100, undeclared=10)}

    async def chunks():
        yield b"x"

    async with client_of(limited(costs)) as client:

        async def send(content):
            return (await client.post("/v1/things/1", headers=issuer.bearer(), content=content)).status_code

        assert await send(b"x" * 1_001) == 413  # 11 units, and never more than 10
        assert await send(b"x" * 899) == 200  # 9
        assert await send(b"x" * 101) == 429  # 2
        assert await send(chunks()) == 429  # says no length: counts as the most
        assert await send(b"") == 200  # 1
        assert await send(b"") == 429


async def test_operators_and_public_routes_have_no_limits(limited, client_of, issuer, publish):
    publish(requests={"default": {"rate": 0.1, "burst": 1}})
    async with client_of(limited(administrative=True)) as client:
        operator = {**issuer.operator(), "X-Tenant-ID": "org-a"}
        for _ in range(5):
            answer = await client.get("/v1/things/1", headers=operator)
            assert answer.status_code == 200
            assert "RateLimit" not in answer.headers
            assert (await client.get("/healthz")).status_code == 200
        statuses = [(await client.get("/v1/things/1", headers=issuer.bearer())).status_code for _ in range(3)]
        assert statuses == [200, 429, 429]


async def test_what_is_refused_is_not_metered_and_not_read(limited, issuer, publish):
    publish(requests={"read": {"rate": 0.1, "burst": 1}})
    recorded = []
    app = limited(metering=RequestMetering(lambda *event: recorded.append(event)))

    async def receive():
        raise AssertionError("the body was asked for")

    async def call():
        sent = []

        async def send(message):
            sent.append(message)

        headers = [(b"host", b"localhost"), (b"authorization", issuer.bearer()["Authorization"].encode())]
        scope = {
            "type": "http", "http_version": "1.1", "method": "GET", "path": "/v1/things/1", "raw_path": b"/v1/things/1",
            "query_string": b"", "headers": headers, "root_path": "", "scheme": "http", "server": ("localhost", 80),
        }  # fmt: skip
        await app(scope, receive, send)
        return sent[0]["status"]

    assert [await call() for _ in range(3)] == [200, 429, 429]
    assert len(recorded) == 1


async def test_a_stream_keeps_its_place_until_its_body_has_ended(limited, client_of, issuer, publish, gate, a):
    publish(concurrency=1)
    go, begun = asyncio.Event(), asyncio.Event()
    app = limited()

    async def parts():
        yield b"first"
        begun.set()
        await go.wait()
        yield b"last"

    @app.get("/v1/stream")
    async def stream() -> StreamingResponse:
        return StreamingResponse(parts())

    async with client_of(app) as client:
        streaming = asyncio.create_task(client.get("/v1/stream", headers=issuer.bearer()))
        await begun.wait()
        assert gate.held == 0  # other tenants have all the places
        waiting = asyncio.create_task(client.get("/v1/things/1", headers=issuer.bearer()))
        while not gate.waiting:  # noqa: ASYNC110
            await asyncio.sleep(0)
        refused = await client.get("/v1/things/1", headers=issuer.bearer())
        assert (refused.status_code, refused.json()["type"]) == (429, "rate-limited")
        assert refused.headers["Retry-After"] == "1"
        go.set()
        assert (await streaming).content == b"firstlast"
        assert (await waiting).status_code == 200
    assert (gate.held, gate.waiting) == (0, 0)


async def test_a_client_that_goes_away_gives_its_place_back(limited, client_of, issuer, gate):
    app, begun = limited(), asyncio.Event()

    @app.get("/v1/stuck")
    async def stuck() -> None:
        begun.set()
        await asyncio.Event().wait()

    async with client_of(app) as client:
        asking = asyncio.create_task(client.get("/v1/stuck", headers=issuer.bearer()))
        await begun.wait()
        assert gate.held == 1
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
    assert gate.held == 0


async def test_a_full_process_sheds_the_loud_and_serves_the_quiet(limited, client_of, issuer, gate, b):
    app, go = limited(), asyncio.Event()

    @app.get("/v1/slow")
    async def slow() -> str:
        await go.wait()
        return "done"

    async with client_of(app) as client:
        loud = [asyncio.create_task(client.get("/v1/slow", headers=issuer.bearer())) for _ in range(12)]
        while gate.waiting < 4:  # noqa: ASYNC110
            await asyncio.sleep(0)
        quiet = asyncio.create_task(client.get("/v1/things/1", headers=of_b(issuer, b)))
        shed = [task for task in loud if task.done()]
        for _ in range(50):
            await asyncio.sleep(0)
        go.set()
        answers = await asyncio.gather(*loud)
        assert (await quiet).status_code == 200
    refused = [answer for answer in answers if answer.status_code == 503]
    assert len(refused) == 5  # 4 are served, 4 wait, of which one gave way to the quiet
    assert len(shed) <= 5
    assert {answer.headers["Retry-After"] for answer in refused} == {"1"}
    assert {answer.json()["type"] for answer in refused} == {"unavailable"}


async def test_messages_of_a_websocket_count_as_requests_do(limited, limiter, publish, directory, a, issuer):
    publish(requests={"read": {"rate": 0.1, "burst": 3}}, concurrency=1)
    app, got = limited(), []

    @app.websocket("/v1/socket")
    async def socket(websocket: WebSocket) -> None:
        await websocket.accept()
        while True:
            got.append(await websocket.receive_text())

    incoming = iter([{"type": "websocket.connect"}, *({"type": "websocket.receive", "text": str(n)} for n in range(9))])
    sent = []

    async def receive():
        return next(incoming)

    async def send(message):
        sent.append(message)

    headers = [(b"host", b"localhost"), (b"authorization", issuer.bearer()["Authorization"].encode())]
    scope = {
        "type": "websocket", "path": "/v1/socket", "raw_path": b"/v1/socket", "query_string": b"", "headers": headers,
        "root_path": "", "scheme": "ws", "server": ("localhost", 80), "subprotocols": [],
    }  # fmt: skip
    await app(scope, receive, send)
    assert got == ["0", "1"]  # the handshake is the first of three
    assert sent[-1] == {"type": "websocket.close", "code": 1008, "reason": "rate-limited"}
    assert await limiter.admit(a, Operation.WRITE)  # the place is free again


async def test_what_one_tenant_has_in_progress_grows_step_by_step_in_every_product(tenant_factory):
    tenant = tenant_factory()
    tenancy = Tenancy("app", TenancySettings(issuer="http://issuer.test"), source=GivenState([tenant], {}))
    with (await tenancy.limiter.admit(tenant, Operation.READ)).place:
        second = asyncio.create_task(tenancy.limiter.admit(tenant, Operation.READ))
        await asyncio.sleep(0)
        assert not second.done()
        async with asyncio.timeout(5):
            (await second).place.release()
