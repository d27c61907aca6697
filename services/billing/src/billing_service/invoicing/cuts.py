"""Asking the usage service for a cut: a mark in its rollup stream behind everything it has received so far."""

from typing import Final, Protocol
from uuid import UUID

import httpx
from tenacity import AsyncRetrying, retry_if_exception, stop_after_attempt, wait_exponential_jitter

_PATH: Final = "/v1/cuts"
_TIMEOUT_SECONDS: Final = 10.0


class CutSource(Protocol):
    async def request_cut(self) -> UUID:
        """The id of a cut that covers everything received before the call. Each call is a cut of its own."""
        ...


class UsageCuts:
    """Cuts over HTTP. Retries what may pass by itself, a few times."""

    def __init__(self, usage: httpx.AsyncClient) -> None:
        """`usage` is `tenancy.client("usage")`: a cut is of all tenants, so it is asked for outside of any scope."""
        self._usage = usage

    async def request_cut(self) -> UUID:
        """Raises httpx.HTTPError when usage keeps refusing: the run shows it and asks again later."""
        retrying = AsyncRetrying(
            retry=retry_if_exception(_may_pass),
            wait=wait_exponential_jitter(initial=0.2, max=2),
            stop=stop_after_attempt(4),
            reraise=True,
        )
        return await retrying(self._post)

    async def _post(self) -> UUID:
        response = await self._usage.post(_PATH, json={}, timeout=_TIMEOUT_SECONDS)
        response.raise_for_status()
        return UUID(response.json()["id"])


def _may_pass(error: BaseException) -> bool:
    if isinstance(error, httpx.HTTPStatusError):
        return error.response.status_code >= 500 or error.response.status_code == 429
    return isinstance(error, httpx.TransportError)
