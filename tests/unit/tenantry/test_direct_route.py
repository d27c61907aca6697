"""A direct route answers as the router would, but for the way there."""

import pytest
from prometheus_client import REGISTRY
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from tenantry import RateLimited
from tenantry.http import DirectRoute, TenancyMiddleware, service_app
from tenantry.identity import Identifier


async def endpoint(request: Request) -> Response:
    match request.headers.get("x-do"):
        case "refuse":
            raise RateLimited("Slow down.", retry_after=7)
        case "break":
            raise KeyError("a secret value")
        case "leave":
            raise ClientDisconnect
    return Response(await request.body(), 202)


def unrouted(_):
    raise AssertionError("the router was asked")


@pytest.fixture
def make(directory, verifier, credentials):
    def make(endpoint_of_router=unrouted):
        app = service_app(title="x", service="direct", max_body_bytes=100)
        app.router.routes.append(Route("/hot", endpoint_of_router, methods=["POST"]))
        app.user_middleware.append(Middleware(DirectRoute, route=Route("/hot", endpoint, methods=["POST"])))
        identifier = Identifier(directory=directory, tokens=verifier, credentials=credentials)
        app.add_middleware(TenancyMiddleware, service="direct", directory=directory, identifier=identifier)
        return app

    return make


def counted():
    return {
        (sample.labels["route"], sample.labels["status"]): sample.value
        for family in REGISTRY.collect()
        for sample in family.samples
        if sample.name == "http_requests_total" and sample.labels["service"] == "direct"
    }


async def test_it_answers_and_is_counted_as_its_route(make, client_of, issuer):
    before = counted().get(("/hot", "202"), 0)
    async with client_of(make()) as client:
        response = await client.post("/hot", content=b"abc", headers=issuer.bearer())
        assert (response.status_code, response.content) == (202, b"abc")
        assert "x-request-id" in response.headers
    assert counted()["/hot", "202"] == before + 1


async def test_its_errors_are_problems_and_its_bodies_are_bounded(make, client_of, issuer):
    async with client_of(make()) as client:
        refused = await client.post("/hot", headers=issuer.bearer() | {"X-Do": "refuse"})
        assert (refused.status_code, refused.headers["retry-after"]) == (429, "7")
        assert refused.json()["instance"] == "/hot"
        large = await client.post("/hot", content=b"x" * 101, headers=issuer.bearer())
        assert (large.status_code, large.json()["type"]) == (413, "payload-too-large")
        broken = await client.post("/hot", headers=issuer.bearer() | {"X-Do": "break"})
        assert broken.status_code == 500
        assert "secret" not in broken.text


async def test_a_caller_that_has_left_is_counted_and_nothing_is_logged(make, client_of, issuer):
    before = counted().get(("/hot", "499"), 0)
    async with client_of(make()) as client:
        with pytest.raises(AssertionError):  # of the test's transport, which misses an answer
            await client.post("/hot", headers=issuer.bearer() | {"X-Do": "leave"})
    assert counted()["/hot", "499"] == before + 1


async def test_everything_else_goes_the_usual_way(make, client_of, issuer):
    async with client_of(make()) as client:
        assert (await client.get("/hot", headers=issuer.bearer())).status_code == 405
        assert (await client.post("/cold", headers=issuer.bearer())).status_code == 404
        assert (await client.post("/hot", content=b"x")).status_code == 401
        assert (await client.get("/healthz")).status_code == 200
