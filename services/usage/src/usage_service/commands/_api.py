"""The usage service over HTTP for a caller with credentials, with a token that is renewed when it ends.

httpx is imported where something is sent: help needs none.
"""

import asyncio
import json
import os
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from tenantry.cli import CommandFailed, Unreachable

if TYPE_CHECKING:
    import httpx

Service = Literal["usage", "tenant", "billing"]

DEFAULT_FILE: Final = Path(".tenantry/operator.json")
PASSING: Final = frozenset({429, 502, 503, 504})
"""Statuses that say: later."""

_TIMEOUT_SECONDS: Final = 60.0
_RENEW_SECONDS: Final = 30


@dataclass(frozen=True, slots=True)
class Credentials:
    """Where the service is, where its tokens come from, and who asks."""

    url: str
    tenant_url: str
    client_id: str
    client_secret: str = field(repr=False)


def find_credentials(environment: Mapping[str, str], service: Service = "usage") -> Credentials:
    """From TENANTRY_USAGE_URL, or that of another service, TENANTRY_TENANT_URL, TENANTRY_CLIENT_ID and
    TENANTRY_CLIENT_SECRET.

    What they leave out is in the operator file that TENANTRY_OPERATOR_FILE names. Raises CommandFailed.
    """
    names = (f"{service.upper()}_URL", "TENANT_URL", "CLIENT_ID", "CLIENT_SECRET")
    url, tenant, client_id, secret = (environment.get(f"TENANTRY_{name}") for name in names)
    if not (url and tenant and client_id and secret):
        path = Path(environment.get("TENANTRY_OPERATOR_FILE") or DEFAULT_FILE)
        try:
            operator = json.loads(path.read_bytes())
            url = url or str(operator["urls"][service])
            tenant = tenant or str(operator["urls"]["tenant"])
            client_id = client_id or str(operator["client_id"])
            secret = secret or str(operator["client_secret"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            variables = ", ".join(f"TENANTRY_{name}" for name in dict.fromkeys(names))
            raise CommandFailed(
                f"no credentials: {path} cannot be used ({error!r})",
                f"`make up` writes it; or set TENANTRY_OPERATOR_FILE, or {variables}",
            ) from None
    return Credentials(url.rstrip("/"), tenant.rstrip("/"), client_id, secret)


class Api:
    """What is asked of the service. `request` raises httpx's TransportError where no answer comes."""

    def __init__(self, client: "httpx.AsyncClient", credentials: Credentials, service: Service = "usage") -> None:
        self.url = credentials.url
        self._service = service
        self._client = client
        self._credentials = credentials
        self._token = ""
        self._renew_at = 0.0
        self._renewing = asyncio.Lock()

    async def request(
        self,
        method: str,
        path: str,
        *,
        content: bytes | None = None,
        params: Mapping[str, str] | None = None,
        media_type: str = "application/json",
    ) -> "httpx.Response":
        """Any answer; one that refuses the token is asked for again with a new one."""
        for _ in range(2):
            headers = {"Authorization": f"Bearer {await self._bearer()}"}
            if content is not None:
                headers["Content-Type"] = media_type
            response = await self._client.request(
                method, f"{self.url}{path}", content=content, params=params, headers=headers
            )
            if response.status_code != HTTPStatus.UNAUTHORIZED:
                break
            self._renew_at = 0.0  # revoked, or signed with a key that is gone: a new one may do
        return response

    async def ask(self, method: str, path: str, body: object = None, *, params: Mapping[str, str] | None = None) -> Any:
        """The document that is answered. Raises CommandFailed for a refusal, Unreachable where no answer comes."""
        import httpx  # noqa: PLC0415 - see the module

        content = None if body is None else json.dumps(body).encode()
        try:
            response = await self.request(method, path, content=content, params=params)
        except httpx.TransportError as error:
            raise Unreachable(
                f"the {self._service} service at {self.url} gives no answer ({str(error) or type(error).__name__})",
                f"start it with `make up`, or set TENANTRY_{self._service.upper()}_URL to where it is",
            ) from None
        if not response.is_success:
            raise failure_of(response)
        return response.json()

    async def _bearer(self) -> str:
        async with self._renewing:
            if time.monotonic() > self._renew_at:
                form = {
                    "grant_type": "client_credentials",
                    "client_id": self._credentials.client_id,
                    "client_secret": self._credentials.client_secret,
                    "audience": self._service,
                }
                response = await self._client.post(f"{self._credentials.tenant_url}/oauth/token", data=form)
                if response.status_code in PASSING:
                    import httpx  # noqa: PLC0415 - see the module

                    raise httpx.ConnectError("no token now")
                if not response.is_success:
                    raise failure_of(response)
                answer = response.json()
                self._token = str(answer["access_token"])
                self._renew_at = time.monotonic() + answer["expires_in"] - _RENEW_SECONDS
            return self._token


@asynccontextmanager
async def connect(service: Service = "usage") -> AsyncIterator[Api]:
    """The service where the environment says it is. Nothing is sent yet."""
    import httpx  # noqa: PLC0415 - see the module

    credentials = find_credentials(os.environ, service)
    async with httpx.AsyncClient(timeout=_TIMEOUT_SECONDS) as client:
        yield Api(client, credentials, service)


def failure_of(response: "httpx.Response") -> CommandFailed:
    """What the problem in a response says."""
    try:
        problem = response.json()
    except ValueError:
        problem = {}
    if not isinstance(problem, dict):
        problem = {}
    title = problem.get("title") or f"the service answered {response.status_code} {response.reason_phrase}"
    detail = problem.get("detail")
    next_step = "set TENANTRY_CLIENT_ID and TENANTRY_CLIENT_SECRET, or TENANTRY_OPERATOR_FILE"
    passed = response.status_code not in {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN}
    return CommandFailed(f"{title}: {detail}" if detail else str(title), None if passed else next_step)
