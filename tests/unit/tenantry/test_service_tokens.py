"""A service's own tokens: fetched once, renewed in time, fetched again when refused."""

import asyncio

import httpx
import pytest

from tenantry import Unavailable
from tenantry.identity import ServiceTokens


class TenantService:
    """The token endpoint, in process."""

    def __init__(self):
        self.asked = []
        self.status = 200
        self.body = None

    def __call__(self, request):
        form = dict(httpx.QueryParams(request.content.decode()))
        self.asked.append(form)
        body = self.body or {"access_token": f"token-{len(self.asked)}", "token_type": "Bearer", "expires_in": 600}
        return httpx.Response(self.status, json=body)


@pytest.fixture
def service():
    return TenantService()


@pytest.fixture
async def tokens(service, clock):
    client = httpx.AsyncClient(transport=httpx.MockTransport(service))
    async with ServiceTokens("http://tenant/oauth/token", "id", "secret", client=client, clock=clock) as tokens:
        yield tokens


async def test_callers_share_one_token_an_audience(tokens, service):
    found = await asyncio.gather(*(tokens.bearer(audience) for audience in ("usage", "usage", "billing", "usage")))
    assert found == ["token-1", "token-1", "token-2", "token-1"]
    assert service.asked[0] == {
        "grant_type": "client_credentials",
        "client_id": "id",
        "client_secret": "secret",
        "audience": "usage",
    }


async def test_a_token_is_renewed_60_seconds_before_its_end(tokens, clock, minutes):
    assert await tokens.bearer("usage") == "token-1"
    clock.advance(minutes(8.99))
    assert await tokens.bearer("usage") == "token-1"
    clock.advance(minutes(0.01))
    assert await tokens.bearer("usage") == "token-2"


@pytest.mark.parametrize(
    ("status", "body"), [(500, None), (401, None), (200, {"nothing": 1}), (200, {"access_token": 5})]
)
async def test_no_token_is_unavailable_and_is_asked_for_again(tokens, service, status, body):
    service.status, service.body = status, body
    with pytest.raises(Unavailable):
        await tokens.bearer("usage")
    service.status, service.body = 200, None
    assert await tokens.bearer("usage") == "token-2"


async def test_a_refused_token_is_replaced_once(tokens):
    seen = []

    def callee(request):
        seen.append(request.headers["authorization"])
        return httpx.Response(401 if len(seen) < 2 else 200)

    async with httpx.AsyncClient(transport=httpx.MockTransport(callee), auth=tokens.auth("usage")) as client:
        assert (await client.get("http://usage/")).status_code == 200
        seen.clear()
        assert (await client.get("http://usage/")).status_code == 200
    assert seen == ["Bearer token-2", "Bearer token-3"]
