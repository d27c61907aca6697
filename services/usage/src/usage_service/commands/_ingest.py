"""The ingest of the usage service over HTTP, as an import asks it: batches, in order, until each is answered.

httpx is imported where something is sent: help needs none.
"""

import asyncio
import json
import os
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from usage_service.commands._failures import CommandFailed, Unreachable

if TYPE_CHECKING:
    import httpx

DEFAULT_FILE: Final = Path(".tenantry/operator.json")
PATIENCE_SECONDS: Final = 300.0
_TIMEOUT_SECONDS: Final = 60.0
_LONGEST_PAUSE: Final = 10.0
_RENEW_SECONDS: Final = 30
_PASSING: Final = frozenset({429, 502, 503, 504})
_RATE_LIMITED: Final = "rate-limited"


@dataclass(frozen=True, slots=True)
class Credentials:
    """Where the services are and who asks."""

    usage_url: str
    tenant_url: str
    client_id: str
    client_secret: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Refused:
    """Of one event: its place in the batch, and why."""

    index: int
    kind: str
    reason: str


def find_credentials(environment: Mapping[str, str]) -> Credentials:
    """From TENANTRY_USAGE_URL, TENANTRY_TENANT_URL, TENANTRY_CLIENT_ID and TENANTRY_CLIENT_SECRET.

    What they leave out is in the operator file that TENANTRY_OPERATOR_FILE names. Raises CommandFailed.
    """
    names = ("USAGE_URL", "TENANT_URL", "CLIENT_ID", "CLIENT_SECRET")
    usage, tenant, client_id, secret = (environment.get(f"TENANTRY_{name}") for name in names)
    if not (usage and tenant and client_id and secret):
        path = Path(environment.get("TENANTRY_OPERATOR_FILE") or DEFAULT_FILE)
        try:
            operator = json.loads(path.read_bytes())
            usage = usage or str(operator["urls"]["usage"])
            tenant = tenant or str(operator["urls"]["tenant"])
            client_id = client_id or str(operator["client_id"])
            secret = secret or str(operator["client_secret"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            variables = ", ".join(f"TENANTRY_{name}" for name in names)
            raise CommandFailed(
                f"no credentials: {path} cannot be used ({error!r})",
                f"`make up` writes it; or set TENANTRY_OPERATOR_FILE, or {variables}",
            ) from None
    return Credentials(usage.rstrip("/"), tenant.rstrip("/"), client_id, secret)


class Ingest:
    """POST /v1/events, with a token that is renewed when it ends."""

    def __init__(
        self,
        client: "httpx.AsyncClient",
        credentials: Credentials,
        *,
        accept_late: bool = False,
        dry_run: bool = False,
        patience: float = PATIENCE_SECONDS,
    ) -> None:
        self._client = client
        self._credentials = credentials
        switches = {"partial": True, "accept_late": accept_late, "dry_run": dry_run}
        self._params = {name: "true" for name, on in switches.items() if on}
        self._patience = patience
        self._token = ""
        self._renew_at = 0.0
        self._renewing = asyncio.Lock()

    async def send(self, events: Sequence[bytes]) -> list[Refused]:
        """Sends events, as JSON, until each of them is accepted or refused for good; returns those refused.

        May be repeated: an event counts once. Raises Unreachable where nobody takes them for `patience` seconds, and
        CommandFailed where the request itself is refused.
        """
        refused: list[Refused] = []
        waiting = list(range(len(events)))
        deadline, pause = time.monotonic() + self._patience, 0.2
        while waiting:
            response = await self._post([events[index] for index in waiting])
            if response is not None and response.is_success:
                rejected = [_refused(waiting[each["index"]], each) for each in response.json()["rejected"]]
                refused += [each for each in rejected if each.kind != _RATE_LIMITED]
                still = [each.index for each in rejected if each.kind == _RATE_LIMITED]
                if len(still) < len(waiting):
                    deadline, pause = time.monotonic() + self._patience, 0.2
                waiting = still
            elif response is not None and response.status_code == HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
                return sorted([*refused, *await self._halves(events, waiting)], key=lambda each: each.index)
            elif response is not None and response.status_code not in _PASSING:
                raise _failure(response)
            if waiting:
                if time.monotonic() > deadline:
                    raise Unreachable(
                        f"the usage service at {self._credentials.usage_url} has taken nothing for "
                        f"{self._patience:.0f} seconds ({_said(response)})"
                    )
                await asyncio.sleep(_pause(response, pause))
                pause = min(pause * 2, _LONGEST_PAUSE)
        return sorted(refused, key=lambda each: each.index)

    async def _halves(self, events: Sequence[bytes], waiting: Sequence[int]) -> list[Refused]:
        """What is too large together may do apart; one event that is too large is refused."""
        if len(waiting) == 1:
            return [Refused(waiting[0], "too-large", "the event is too large")]
        middle, refused = len(waiting) // 2, []
        for half in (waiting[:middle], waiting[middle:]):
            answers = await self.send([events[index] for index in half])
            refused += [Refused(half[each.index], each.kind, each.reason) for each in answers]
        return refused

    async def _post(self, events: Sequence[bytes]) -> "httpx.Response | None":
        """The answer; None where none came."""
        import httpx  # noqa: PLC0415 - see the module

        body = b"[" + b",".join(events) + b"]"
        headers = {"Content-Type": "application/cloudevents-batch+json"}
        url = f"{self._credentials.usage_url}/v1/events"
        try:
            for _ in range(2):
                authorization = {"Authorization": f"Bearer {await self._bearer()}"}
                response = await self._client.post(
                    url, content=body, params=self._params, headers=headers | authorization
                )
                if response.status_code != HTTPStatus.UNAUTHORIZED:
                    break
                self._renew_at = 0.0  # revoked, or signed with a key that is gone: a new one may do
        except httpx.TransportError:
            return None
        return response

    async def _bearer(self) -> str:
        async with self._renewing:
            if time.monotonic() > self._renew_at:
                form = {
                    "grant_type": "client_credentials",
                    "client_id": self._credentials.client_id,
                    "client_secret": self._credentials.client_secret,
                    "audience": "usage",
                }
                response = await self._client.post(f"{self._credentials.tenant_url}/oauth/token", data=form)
                if response.status_code in _PASSING:
                    response.read()
                    import httpx  # noqa: PLC0415 - see the module

                    raise httpx.ConnectError("no token now")
                if not response.is_success:
                    raise _failure(response)
                answer = response.json()
                self._token = str(answer["access_token"])
                self._renew_at = time.monotonic() + answer["expires_in"] - _RENEW_SECONDS
            return self._token


@asynccontextmanager
async def connect(*, accept_late: bool, dry_run: bool) -> AsyncIterator[Ingest]:
    """The ingest that the environment names. Nothing is sent yet."""
    import httpx  # noqa: PLC0415 - see the module

    credentials = find_credentials(os.environ)
    async with httpx.AsyncClient(timeout=_TIMEOUT_SECONDS) as client:
        yield Ingest(client, credentials, accept_late=accept_late, dry_run=dry_run)


def _refused(index: int, error: Mapping[str, Any]) -> Refused:
    return Refused(index, str(error["kind"]), str(error["reason"]))


def _failure(response: "httpx.Response") -> CommandFailed:
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


def _said(response: "httpx.Response | None") -> str:
    return "no answer" if response is None else f"{response.status_code} {response.reason_phrase}"


def _pause(response: "httpx.Response | None", pause: float) -> float:
    told = "" if response is None else response.headers.get("Retry-After", "")
    return max(pause, float(told)) if told.isdigit() else pause
