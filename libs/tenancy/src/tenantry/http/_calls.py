"""Calls of other services: who calls, for which tenant and in which request, and nothing of it to anybody else."""

from collections.abc import Mapping
from typing import Final

import httpx

from tenantry._context import _caller, _request_id, _traceparent, current_tenant_or_none
from tenantry._ids import uuid7
from tenantry.identity import CONTEXT_HEADER, TENANT_HEADER, ContextSigner, ServiceTokens

_REDIRECTED: Final = "tenantry.redirected"
_REQUEST_ID: Final = "X-Request-ID"
_TRACEPARENT: Final = "traceparent"
_OURS: Final = (CONTEXT_HEADER, TENANT_HEADER, _REQUEST_ID, _TRACEPARENT, "tracestate", "baggage")
_DEFAULT_PORTS: Final = {"http": 80, "https": 443}


class ServiceTransport(httpx.AsyncBaseTransport):
    """Authenticates requests to services that are known by their origin, and strips all others.

    A known service gets this service's token for it, the request id and the trace, and inside a tenant's scope the
    tenant context, signed for this one call. Any other host, and whatever a redirect leads to, gets none of that: not
    even what the calling code has set by hand. `Authorization` that it has set for another host is its own affair.
    """

    def __init__(
        self,
        tokens: ServiceTokens,
        signer: ContextSigner,
        services: Mapping[str, str],
        inner: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        """`services` are base URLs by audience, as in `{"usage": "http://usage:8002"}`."""
        self._tokens = tokens
        self._signer = signer
        self._audiences = {_origin(httpx.URL(url)): audience for audience, url in services.items()}
        self._inner = inner or httpx.AsyncHTTPTransport()

    async def aclose(self) -> None:
        await self._inner.aclose()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        redirected = _REDIRECTED in request.extensions
        audience = None if redirected else self._audiences.get(_origin(request.url))
        if audience is None:
            return await self._inner.handle_async_request(_strip(request, redirected=redirected))
        response = await self._inner.handle_async_request(await self._authenticate(request, audience))
        if response.status_code == httpx.codes.UNAUTHORIZED and isinstance(request.stream, httpx.ByteStream):
            # Keys may have been rotated, or the service's credential renewed, while the token was kept.
            await response.aclose()
            self._tokens.forget(audience)
            response = await self._inner.handle_async_request(await self._authenticate(request, audience))
        if response.has_redirect_location:
            request.extensions[_REDIRECTED] = True  # the request that follows it is made of this one
        return response

    async def _authenticate(self, request: httpx.Request, audience: str) -> httpx.Request:
        headers = request.headers.copy()
        request_id = _request_id.get() or str(uuid7())
        headers["Authorization"] = f"Bearer {await self._tokens.bearer(audience)}"
        headers[_REQUEST_ID] = request_id
        traceparent = _traceparent.get()
        if traceparent is not None:
            headers.setdefault(_TRACEPARENT, traceparent)  # an instrumented client knows its place better
        headers.pop(CONTEXT_HEADER, None)
        tenant, caller = current_tenant_or_none(), _caller.get()
        if tenant is not None:
            headers[CONTEXT_HEADER] = self._signer.sign(
                audience=audience,
                tenant_id=tenant.id,
                actor=None if caller is None else caller.actor or caller.subject,
                request_id=request_id,
            )
        return _with_headers(request, headers)


def _strip(request: httpx.Request, *, redirected: bool) -> httpx.Request:
    headers = request.headers.copy()
    for name in (*_OURS, "Authorization") if redirected else _OURS:
        headers.pop(name, None)
    return _with_headers(request, headers)


def _with_headers(request: httpx.Request, headers: httpx.Headers) -> httpx.Request:
    # A copy: what a redirect makes of the original must not hold what was added for this host.
    return httpx.Request(
        request.method, request.url, headers=headers, stream=request.stream, extensions=request.extensions
    )


def _origin(url: httpx.URL) -> tuple[str, str, int | None]:
    return url.scheme, url.host, url.port or _DEFAULT_PORTS.get(url.scheme)
