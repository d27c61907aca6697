"""T16: who loses a right loses it now: on the next request, and in the middle of a stream that says nothing."""

import asyncio
import json
import time

import pytest
from fastapi import FastAPI
from issuer import ISSUER, Issuer
from local_state import GivenState
from security_tenants import A, make_tenant
from starlette.responses import Response, StreamingResponse
from starlette.websockets import WebSocket

from tenantry import TenantStatus, Unauthenticated
from tenantry.http import TenancyMiddleware, service_app
from tenantry.identity import DEFAULT_SOURCES, Credential, Identifier, Principal, PrincipalKind, TokenVerifier
from tenantry.testing import eventually

RECHECK = 0.1


class Stage:
    """An application with every kind of stream, and what takes the right to it away."""

    def __init__(self):
        self.issuer = Issuer()
        self.state = GivenState([make_tenant(A)], self.issuer.jwks)
        self.company_sessions = {"good"}
        self.ended = []
        self.app = self._app()

    def _app(self) -> FastAPI:
        app = service_app(title="Streams", service="streams")

        async def company(request):
            session = request.headers.get("x-company-session")
            if session is None:
                return None
            if session not in self.company_sessions:
                raise Unauthenticated
            return Principal(subject="u", kind=PrincipalKind.USER, tenant_id=A, credential_id="c")

        async def quiet(first):
            try:
                yield first
                await asyncio.sleep(60)
                yield b"never"
            finally:
                self.ended.append(first)

        @app.get("/events")
        async def events() -> Response:
            return StreamingResponse(quiet(b"data: half a fr"), media_type="text/event-stream")

        @app.get("/file")
        async def file() -> Response:
            return StreamingResponse(quiet(b"part"), headers={"Content-Length": "100"})

        @app.websocket("/live")
        async def live(socket: WebSocket):
            await socket.accept()
            try:
                await socket.receive_text()
            finally:
                self.ended.append(b"socket")

        app.add_middleware(
            TenancyMiddleware,
            service="streams",
            directory=self.state.directory,
            identifier=Identifier(
                directory=self.state.directory,
                tokens=TokenVerifier(self.state.keys, issuer=ISSUER, audience="app"),
                credentials=self.state.credentials,
                identify=[*DEFAULT_SOURCES, company],
            ),
            recheck_seconds=RECHECK,
        )
        return app

    async def connect(self, path, headers, *, kind="http"):
        """Starts a request and returns its task and what was sent to the client so far."""
        sent: list[dict] = []
        opened = asyncio.Event()

        async def receive():
            if not opened.is_set():
                opened.set()
                return {"type": "http.request", "body": b""} if kind == "http" else {"type": "websocket.connect"}
            await asyncio.sleep(60)
            return {"type": "http.disconnect"}

        async def send(message):
            sent.append(message)

        scope = {
            "type": kind, "path": path, "raw_path": path.encode(), "query_string": b"", "root_path": "",
            "scheme": "http", "method": "GET", "http_version": "1.1", "client": ("c", 1), "server": ("s", 80),
            "headers": [(name.lower().encode(), value.encode()) for name, value in headers.items()],
        }  # fmt: skip
        if kind == "websocket":
            del scope["method"]
            scope["subprotocols"] = []
        task = asyncio.create_task(self.app(scope, receive, send))
        first = "http.response.body" if kind == "http" else "websocket.accept"
        await eventually(lambda: any(message["type"] == first for message in sent), interval=0.01)
        return task, sent


@pytest.fixture
def stage():
    return Stage()


def suspend(stage):
    stage.state.directory.upsert(
        make_tenant(A, version=2, status=TenantStatus.SUSPENDED, suspension_reasons=("abuse",))
    )
    return "tenant-suspended"


def withdraw_keys(stage):
    stage.state.keys.replace({"keys": []})
    return "unauthenticated"


def end_grant(stage):
    stage.state.credentials.remove("grant")
    return "unauthenticated"


def revoke_key(stage):
    for credential_id in list(stage.state.credentials._principals):
        stage.state.credentials.remove(credential_id)
    return "unauthenticated"


def end_company_session(stage):
    stage.company_sessions.clear()
    return "unauthenticated"


def bearer(token):
    return {"Authorization": f"Bearer {token}"}


def by_token(stage):
    return bearer(stage.issuer.token(tenant_id=A))


def by_grant(stage):
    stage.state.credentials.upsert(
        Credential(id="grant", kind="support", tenant_id=A, subject="support", scopes=frozenset({"tenant:read"}))
    )
    claims = {"credential_id": "grant", "act": {"sub": "operator-7"}}
    return bearer(stage.issuer.token(tenant_id=A, kind="support", scope="tenant:read", claims=claims))


def by_key(stage):
    return stage.state.key("tenant:read", tenant=make_tenant(A))


def by_company(_):
    return {"X-Company-Session": "good"}


WAYS = [
    (by_token, suspend),
    (by_token, withdraw_keys),
    (by_grant, end_grant),
    (by_grant, suspend),
    (by_key, revoke_key),
    (by_key, suspend),
    (by_company, end_company_session),
    (by_company, suspend),
]
ways = pytest.mark.parametrize(("by", "end"), WAYS, ids=[f"{by.__name__}-{end.__name__}" for by, end in WAYS])


async def ended(task, began):
    await asyncio.wait_for(task, 5)
    return time.perf_counter() - began


@ways
async def test_quiet_server_sent_events_end_with_a_problem(stage, by, end):
    task, sent = await stage.connect("/events", by(stage))
    began = time.perf_counter()
    reason = end(stage)
    assert await ended(task, began) < 10 * RECHECK
    last = sent[-1]
    assert (last["type"], last["more_body"]) == ("http.response.body", False)
    head, _, data = last["body"].partition(b"data: ")
    assert head == b"\n\nevent: problem\n"
    assert json.loads(data)["type"] == reason
    assert b"never" not in b"".join(message.get("body", b"") for message in sent)
    assert stage.ended == [b"data: half a fr"]


@ways
async def test_a_quiet_websocket_is_closed_with_the_reason(stage, by, end):
    task, sent = await stage.connect("/live", by(stage), kind="websocket")
    began = time.perf_counter()
    reason = end(stage)
    assert await ended(task, began) < 10 * RECHECK
    assert sent[-1] == {"type": "websocket.close", "code": 1008, "reason": reason}
    assert stage.ended == [b"socket"]


async def test_a_response_of_a_stated_length_is_left_incomplete(stage):
    task, sent = await stage.connect("/file", by_token(stage))
    suspend(stage)
    await asyncio.wait_for(task, 5)
    assert [message.get("more_body") for message in sent if message["type"] == "http.response.body"] == [True]


@pytest.mark.parametrize("kind", ["http", "websocket"])
async def test_a_stream_goes_on_while_nothing_changes_and_a_real_cancellation_stays_one(stage, kind):
    task, sent = await stage.connect("/events" if kind == "http" else "/live", by_token(stage), kind=kind)
    count = len(sent)
    _, pending = await asyncio.wait([task], timeout=5 * RECHECK)
    assert pending
    assert len(sent) == count
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


@ways
async def test_the_next_request_is_refused_at_once(stage, by, end):
    headers = by(stage)
    task, _ = await stage.connect("/events", headers)
    end(stage)
    began = time.perf_counter()
    refused, sent = await stage.connect("/events", headers)
    await refused
    assert sent[0]["status"] in {401, 403}
    assert time.perf_counter() - began < 1
    await asyncio.wait_for(task, 5)
