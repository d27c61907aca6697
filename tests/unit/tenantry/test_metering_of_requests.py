"""Every admitted request of a tenant is recorded once, with its bytes, before its response ends."""

import asyncio

import pytest
from fastapi import APIRouter, HTTPException, Request
from starlette.responses import StreamingResponse

from tenantry import NotFound, Unavailable
from tenantry.http import RequestMetering

PATH = "/v1/things/{thing}"


class Recorder:
    """The spool's stand-in: keeps events, or is full."""

    def __init__(self):
        self.events = []
        self.full = False

    def __call__(self, tenant, type, data):  # noqa: A002
        if self.full:
            raise Unavailable("The spool is full.", retry_after=5)
        self.events.append((tenant.id, type, data))


@pytest.fixture
def recorder():
    return Recorder()


@pytest.fixture
def app(make_app, recorder):
    app = make_app(metering=RequestMetering(recorder, event_type="things.request"))
    router = APIRouter()

    @router.post("/echo")
    async def echo(request: Request) -> int:
        return len(await request.body())

    @router.get("/missing")
    async def missing() -> None:
        raise NotFound

    @router.get("/teapot")
    async def teapot() -> None:
        raise HTTPException(418, "short and stout")

    @router.get("/broken")
    async def broken() -> None:
        raise RuntimeError

    @router.delete("/empty", status_code=204)
    async def empty() -> None: ...

    @router.get("/stream")
    async def stream() -> StreamingResponse:
        async def parts():
            for _ in range(3):
                yield b"12345"

        return StreamingResponse(parts())

    app.include_router(router, prefix="/api")
    return app


@pytest.mark.parametrize(
    ("method", "path", "sent", "template", "status", "bytes_out"),
    [
        ("GET", "/v1/things/7?q=1", b"", PATH, 200, None),
        ("POST", "/api/echo", b"x" * 1000, "/api/echo", 200, 4),
        ("GET", "/api/missing", b"", "/api/missing", 404, None),
        ("GET", "/api/teapot", b"", "/api/teapot", 418, None),
        ("DELETE", "/api/empty", b"", "/api/empty", 204, 0),
        ("GET", "/api/stream", b"", "/api/stream", 200, 15),
        ("GET", "/nowhere/7", b"", "none", 404, None),
        ("PUT", "/v1/things/7", b"", PATH, 405, None),
    ],
)
async def test_one_event_a_request(
    app, client_of, recorder, issuer, a, method, path, sent, template, status, bytes_out
):
    async with client_of(app) as client:
        response = await client.request(method, path, content=sent, headers=issuer.bearer())
    assert response.status_code == status
    assert recorder.events == [
        (
            a.id,
            "things.request",
            {
                "bytes_in": len(sent),
                "bytes_out": len(response.content) if bytes_out is None else bytes_out,
                "path": template,
                "method": method,
                "status": status,
            },
        )
    ]


async def test_a_streamed_upload_is_counted_as_it_is_read(app, client_of, recorder, issuer):
    async def parts():
        for _ in range(4):
            yield b"x" * 250

    async with client_of(app) as client:
        response = await client.post("/api/echo", content=parts(), headers=issuer.bearer())
    assert response.json() == recorder.events[0][2]["bytes_in"] == 1000


async def test_an_error_of_the_application_is_metered_as_500(app, client_of, recorder, issuer):
    async with client_of(app) as client:
        assert (await client.get("/api/broken", headers=issuer.bearer())).status_code == 500
    assert [data["status"] for _, _, data in recorder.events] == [500]


async def test_nothing_is_metered_without_a_tenant_or_for_a_refusal(app, client_of, recorder, issuer, suspend, a):
    async with client_of(app) as client:
        await client.get("/healthz", headers=issuer.bearer())
        await client.get("/v1/things/7")
        await client.get("/v1/things/7", headers=issuer.bearer() | {"X-Tenant-ID": "org-b"})
        await client.get("/v1/things/7", headers=issuer.operator())
        suspend(a)
        await client.get("/v1/things/7", headers=issuer.bearer())
    assert recorder.events == []


async def test_an_operators_request_is_metered_for_the_tenant_that_it_selects(app, client_of, recorder, issuer, b):
    async with client_of(app) as client:
        await client.get("/v1/things/7", headers=issuer.operator() | {"X-Tenant-ID": "org-b"})
    assert [event[0] for event in recorder.events] == [b.id]


async def test_what_cannot_be_recorded_is_refused_with_503(app, client_of, recorder, issuer):
    recorder.full = True
    async with client_of(app) as client:
        response = await client.get("/v1/things/7", headers=issuer.bearer())
    assert response.status_code == 503
    assert response.json()["type"] == "unavailable"
    assert response.headers["retry-after"] == "5"
    assert "x-request-id" in response.headers


async def test_a_spool_that_is_known_to_be_full_refuses_before_any_work(make_app, client_of, recorder, issuer):
    app = make_app(metering=RequestMetering(recorder, is_full=lambda: True))
    worked = []
    app.post("/work")(lambda: worked.append(1))
    async with client_of(app) as client:
        assert (await client.post("/work", headers=issuer.bearer())).status_code == 503
    assert worked == []


class Wire:
    """The server's side of one request: collects what is sent, and says when."""

    def __init__(self, app, path, headers, recorder=None):
        self._app = app
        self._scope = {
            "type": "http",
            "method": "GET",
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "root_path": "",
            "scheme": "http",
            "http_version": "1.1",
            "server": ("localhost", 80),
            "client": ("127.0.0.1", 1),
            "headers": [(name.lower().encode(), value.encode()) for name, value in headers.items()],
        }
        self._recorder = recorder
        self.messages = []
        self.recorded_at = []

    async def run(self):
        first = True

        async def receive():
            nonlocal first
            if first:
                first = False
                return {"type": "http.request", "body": b"", "more_body": False}
            return await asyncio.Event().wait()

        await self._app(self._scope, receive, self._send)

    async def _send(self, message):
        self.messages.append(message)
        if self._recorder is not None:
            self.recorded_at.append(len(self._recorder.events))


async def test_the_record_is_made_before_the_last_part_is_sent(app, recorder, issuer):
    for path in ("/v1/things/7", "/api/stream"):
        recorder.events.clear()
        wire = Wire(app, path, issuer.bearer(), recorder)
        await wire.run()
        assert wire.recorded_at[-1] == 1
        assert not any(wire.recorded_at[1:-1])


async def test_a_stream_that_cannot_be_recorded_is_left_without_an_end_where_its_length_was_said(app, recorder, issuer):
    recorder.full = True

    @app.get("/file")
    async def file() -> StreamingResponse:
        async def parts():
            yield b"12345"
            yield b"12345"

        return StreamingResponse(parts(), headers={"Content-Length": "10"})

    wire = Wire(app, "/file", issuer.bearer())
    await wire.run()
    assert [m.get("body") for m in wire.messages if m["type"] == "http.response.body"] == [b"12345", b"12345"]
    assert all(m.get("more_body", True) for m in wire.messages)


async def test_a_caller_that_goes_away_is_metered_for_what_it_got(app, recorder, issuer):
    waiting = asyncio.Event()

    @app.get("/endless")
    async def endless() -> StreamingResponse:
        async def parts():
            yield b"12345"
            waiting.set()
            await asyncio.Event().wait()

        return StreamingResponse(parts())

    task = asyncio.create_task(Wire(app, "/endless", issuer.bearer()).run())
    await waiting.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert [(data["status"], data["bytes_out"]) for _, _, data in recorder.events] == [(200, 5)]


@pytest.mark.parametrize("sized", [False, True])
async def test_a_stream_ends_soon_after_the_right_to_it(app, recorder, issuer, suspend, a, monkeypatch, sized):
    now = [100.0]
    monkeypatch.setattr("tenantry.http._exchange.time.perf_counter", lambda: now[0])

    @app.get("/live")
    async def live() -> StreamingResponse:
        async def parts():
            yield b"before"
            suspend(a)
            now[0] += 0.9
            yield b"within"
            now[0] += 0.2
            yield b"after"
            yield b"never"

        return StreamingResponse(parts(), headers={"Content-Length": "99"} if sized else {})

    wire = Wire(app, "/live", issuer.bearer())
    await wire.run()
    bodies = [message["body"] for message in wire.messages if message["type"] == "http.response.body"]
    assert bodies == [b"before", b"within", *([] if sized else [b""])]
    assert wire.messages[-1].get("more_body", False) is sized
    # Ended, but used until then: the part that was refused was made all the same.
    assert [data["status"] for _, _, data in recorder.events] == [200]


async def test_a_stream_ends_with_its_token(make_app, recorder, issuer, clock, minutes):
    app = make_app(metering=RequestMetering(recorder, event_type="things.request"), recheck_seconds=0.0)

    @app.get("/live")
    async def live() -> StreamingResponse:
        async def parts():
            yield b"before"
            clock.advance(minutes(10))
            yield b"after"

        return StreamingResponse(parts())

    wire = Wire(app, "/live", issuer.bearer())
    await wire.run()
    assert [m["body"] for m in wire.messages if m["type"] == "http.response.body"] == [b"before", b""]
