"""A client for the services' HTTP interfaces that sits out restarts.

    SampleError         what ends a sample run
      ApiError          a service refused a request
      OnboardingError   a tenant could not be provisioned (onboarding.py)

Every request of the sample may be repeated: it reads, it puts, or it carries an Idempotency-Key or events with ids.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import httpx

from tenantry_dev.run.settings import SERVICES

_PATIENCE_SECONDS = 120.0
_LONGEST_PAUSE_SECONDS = 2.0
_PASSING = frozenset({429, 502, 503, 504})
# Before a token's ten minutes are over.
_TOKEN_SECONDS = 300.0


class SampleError(RuntimeError):
    """The sample run cannot go on; the text is for the person at the terminal."""


class ApiError(SampleError):
    """A service refused a request. `status` and the problem document say why."""

    def __init__(self, request: httpx.Request, status: int, problem: Mapping[str, Any]) -> None:
        super().__init__(f"{request.method} {request.url} answered {status}: {problem}")
        self.status = status
        self.problem = problem


class Api:
    """One service. Answers are parsed JSON; refusals raise ApiError; an unreachable service is waited for."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self._client = client

    async def get(self, path: str, **parameters: Any) -> Any:
        return await self.call("GET", path, params=parameters)

    async def put(self, path: str, document: Any) -> Any:
        return await self.call("PUT", path, json=document)

    async def post(self, path: str, document: Any, *, key: str | None = None) -> Any:
        """`key` is the Idempotency-Key."""
        return await self.call("POST", path, json=document, headers={"Idempotency-Key": key} if key else None)

    async def call(self, method: str, path: str, **options: Any) -> Any:
        """Any request; an answer without a body is None."""
        answer = await self.send(method, path, **options)
        return answer.json() if answer.content else None

    async def send(self, method: str, path: str, **options: Any) -> httpx.Response:
        """Repeats the request while the service is away or busy, for at most two minutes."""
        deadline = time.monotonic() + _PATIENCE_SECONDS
        pause = 0.05
        while True:
            try:
                answer = await self._client.request(method, path, **options)
            except httpx.TransportError:
                if time.monotonic() > deadline:
                    raise
            else:
                if answer.status_code not in _PASSING or time.monotonic() > deadline:
                    break
                pause = max(pause, float(answer.headers.get("Retry-After", 0)))
            await asyncio.sleep(min(pause, _LONGEST_PAUSE_SECONDS))
            pause *= 2
        if answer.is_error:
            raise ApiError(answer.request, answer.status_code, _problem(answer))
        return answer

    async def items(self, path: str, **parameters: Any) -> AsyncIterator[Any]:
        """All items of a list, page after page."""
        cursor: str | None = None
        while True:
            page = await self.get(path, **parameters, **({"cursor": cursor} if cursor else {}))
            for item in page["items"]:
                yield item
            cursor = page["next_cursor"]
            if cursor is None:
                return

    async def until(self, path: str, arrived: Callable[[Any], bool], *, within: float, **parameters: Any) -> Any:
        """Asks until the answer has arrived where it should, and gives it. 404 counts as not yet."""
        deadline = time.monotonic() + within
        while True:
            try:
                answer = await self.get(path, **parameters)
                if arrived(answer):
                    return answer
            except ApiError as error:
                if error.status != httpx.codes.NOT_FOUND or time.monotonic() > deadline:
                    raise
                answer = error.problem
            if time.monotonic() > deadline:
                raise SampleError(f"{path} did not arrive within {within:.0f} s; the last answer was {answer}")
            await asyncio.sleep(0.1)


class Apis:
    """The four services, as one client of the tenant service sees them."""

    def __init__(self, tenant: Api, usage: Api, billing: Api, app: Api) -> None:
        self.tenant = tenant
        self.usage = usage
        self.billing = billing
        self.app = app


@asynccontextmanager
async def connect(urls: Mapping[str, str], client_id: str, client_secret: str) -> AsyncIterator[Apis]:
    """Clients of all services that get their tokens with these credentials."""
    async with httpx.AsyncClient(base_url=urls["tenant"], timeout=30, trust_env=False) as tokens:
        clients = {
            service: httpx.AsyncClient(
                base_url=urls[service],
                timeout=60,
                trust_env=False,
                auth=_ClientCredentials(tokens, client_id, client_secret, audience=service),
            )
            for service in SERVICES
        }
        try:
            yield Apis(**{service: Api(client) for service, client in clients.items()})
        finally:
            for client in clients.values():
                await client.aclose()


class _ClientCredentials(httpx.Auth):
    """Bearer tokens of one audience, taken anew before they expire."""

    def __init__(self, client: httpx.AsyncClient, client_id: str, client_secret: str, *, audience: str) -> None:
        self._client = Api(client)
        self._form = {
            "grant_type": "client_credentials",
            "client_id": client_id,
            "client_secret": client_secret,
            "audience": audience,
        }
        self._token = ""
        self._fresh_until = 0.0
        self._lock = asyncio.Lock()

    async def async_auth_flow(self, request: httpx.Request) -> Any:
        async with self._lock:
            if time.monotonic() > self._fresh_until:
                answer = await self._client.call("POST", "/oauth/token", data=self._form)
                self._token = answer["access_token"]
                self._fresh_until = time.monotonic() + _TOKEN_SECONDS
        request.headers["Authorization"] = f"Bearer {self._token}"
        yield request


def _problem(answer: httpx.Response) -> Mapping[str, Any]:
    try:
        document = answer.json()
    except ValueError:
        return {"detail": answer.text[:500]}
    return document if isinstance(document, dict) else {"detail": document}
