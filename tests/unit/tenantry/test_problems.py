"""Errors on the wire."""

import pytest
from fastapi import HTTPException, Request
from pydantic import BaseModel, ConfigDict

import tenantry
from tenantry import InvalidRequest, RateLimited, TenantryError, Unavailable
from tenantry.http import install_problem_handlers, service_app


class Thing(BaseModel):
    model_config = ConfigDict(extra="forbid")
    count: int


@pytest.fixture
def app():
    app = service_app(title="x", service="x", max_body_bytes=100, body_limits={"PUT /files/{name}": 1000})

    @app.post("/things")
    async def post(thing: Thing) -> Thing:
        return thing

    @app.api_route("/files/{name}", methods=["PUT"])
    async def put(name: str, request: Request) -> int:
        return sum([len(part) async for part in request.stream()])

    @app.get("/raise/{name}")
    async def fail(name: str) -> None:
        raise {
            "limited": RateLimited("Slow down.", retry_after=7),
            "away": Unavailable("Kafka is away."),
            "invalid": InvalidRequest("No.", errors=[{"loc": ["body", 0], "msg": "wrong"}]),
            "http": HTTPException(451, "Not here.", headers={"X-Why": "law"}),
            "unmodified": HTTPException(304),
            "broken": KeyError("secret value"),
        }[name]

    return app


@pytest.fixture
async def client(app, client_of):
    async with client_of(app) as client:
        yield client


async def test_an_expected_error_says_what_it_is(client):
    response = await client.get("/raise/limited")
    assert response.headers["content-type"] == "application/problem+json"
    assert response.headers["retry-after"] == "7"
    assert response.json() == {
        "type": "rate-limited",
        "title": "Too many requests",
        "status": 429,
        "detail": "Slow down.",
        "instance": "/raise/limited",
    }


async def test_faults_of_fields_are_listed(client):
    assert (await client.get("/raise/invalid")).json()["errors"] == [{"loc": ["body", 0], "msg": "wrong"}]


async def test_an_unexpected_error_tells_nothing(client):
    response = await client.get("/raise/broken")
    assert (response.status_code, response.json()["type"]) == (500, "internal-error")
    assert "secret" not in response.text
    assert "KeyError" not in response.text


async def test_http_exceptions_become_problems(client):
    response = await client.get("/raise/http")
    assert (response.status_code, response.json()["detail"], response.headers["x-why"]) == (451, "Not here.", "law")
    assert (await client.get("/raise/unmodified")).content == b""
    assert (await client.get("/nowhere")).json()["type"] == "not-found"
    assert (await client.delete("/things")).json()["type"] == "method-not-allowed"


@pytest.mark.parametrize(
    ("body", "status", "kind"),
    [
        (b"{", 400, "malformed-json"),
        (b"", 422, "invalid-request"),
        (b"\xff", 400, "malformed-json"),
        (b"[1]", 422, "invalid-request"),
        (b'{"count": "many"}', 422, "invalid-request"),
        (b'{"count": 1, "tenant_id": "x"}', 422, "invalid-request"),
        (b"null", 422, "invalid-request"),
        (b'{"count": 1' + b" " * 100 + b"}", 413, "payload-too-large"),
    ],
)
async def test_bodies(client, body, status, kind):
    response = await client.post("/things", content=body, headers={"Content-Type": "application/json"})
    assert (response.status_code, response.json()["type"]) == (status, kind)


async def test_faults_name_the_place_and_never_repeat_the_value(client):
    response = await client.post("/things", json={"count": "hunter2"})
    assert response.json()["errors"][0]["loc"] == ["body", "count"]
    assert "hunter2" not in response.text


async def test_a_body_limit_holds_without_a_declared_length_and_per_route(client):
    async def parts(count):
        for _ in range(count):
            yield b"x" * 50

    assert (await client.post("/things", content=parts(3))).status_code == 413
    assert (await client.put("/files/a", content=parts(20))).json() == 1000
    assert (await client.put("/files/a", content=parts(21))).status_code == 413
    assert (await client.put("/files/a", content=b"x" * 1001)).status_code == 413
    assert (await client.post("/things", headers={"Content-Length": "a"})).json()["type"] == "malformed-request"


async def test_readiness_names_what_is_missing(client_of):
    state = {"directory": False, "kafka": True}

    async def kafka():
        return state["kafka"]

    app = service_app(title="x", service="x", ready={"directory": lambda: state["directory"], "kafka": kafka})
    async with client_of(app) as client:
        assert (await client.get("/healthz")).json() == {"status": "ok"}
        response = await client.get("/readyz")
        assert (response.status_code, response.json()["detail"]) == (503, "Not ready: directory.")
        state["directory"] = True
        assert (await client.get("/readyz")).json() == {"status": "ready", "checks": ["directory", "kafka"]}


def test_every_error_has_its_own_type_and_status():
    classes = [
        value for value in vars(tenantry).values() if isinstance(value, type) and issubclass(value, TenantryError)
    ]
    by_type: dict[str, set[int]] = {}
    for error in classes:
        assert 400 <= error.status < 600
        assert error("").detail
        by_type.setdefault(error.type, set()).add(error.status)
    assert all(len(statuses) == 1 for statuses in by_type.values())
    assert callable(install_problem_handlers)
