"""The tenant service over HTTP, with a token that is fetched when it is needed and renewed when it ends.

httpx and tenacity are imported where something is sent: help and completion of names need neither.
"""

import json
import os
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

from tenant_service.commands._failures import Refused
from tenantry.cli import CommandFailed, Misused, Unreachable

if TYPE_CHECKING:
    import httpx
    from tenacity import RetryCallState

DEFAULT_FILE: Final = Path(".tenantry/operator.json")
TIMEOUT_SECONDS: Final = 30.0
CONNECT_SECONDS: Final = 5.0
ATTEMPTS: Final = 3
PAGE: Final = 200
ABSENT: Final = 0
"""The version of a document that is not there."""
_LONGEST_WAIT: Final = 10.0
_RENEW_SECONDS: Final = 30
_PASSING: Final = frozenset({HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.BAD_GATEWAY, HTTPStatus.SERVICE_UNAVAILABLE})


@dataclass(frozen=True, slots=True)
class Credentials:
    """Where the service is and who asks."""

    url: str
    client_id: str
    client_secret: str = field(repr=False)


def find_credentials(environment: Mapping[str, str], file: Path | None = None) -> Credentials:
    """From TENANTRY_TENANT_URL, TENANTRY_CLIENT_ID and TENANTRY_CLIENT_SECRET.

    What they leave out is in the operator file: `file`, or TENANTRY_OPERATOR_FILE. Raises `CommandFailed`.
    """
    url, client_id, client_secret = (
        environment.get(f"TENANTRY_{name}") for name in ("TENANT_URL", "CLIENT_ID", "CLIENT_SECRET")
    )
    if not (url and client_id and client_secret):
        path = file or Path(environment.get("TENANTRY_OPERATOR_FILE") or DEFAULT_FILE)
        try:
            operator = json.loads(path.read_bytes())
            url = url or str(operator["urls"]["tenant"])
            client_id = client_id or str(operator["client_id"])
            client_secret = client_secret or str(operator["client_secret"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise CommandFailed(
                f"no credentials: {path} cannot be used ({error!r})",
                "`make up` writes it; or set TENANTRY_OPERATOR_FILE, or TENANTRY_TENANT_URL, TENANTRY_CLIENT_ID and "
                "TENANTRY_CLIENT_SECRET",
            ) from None
    return Credentials(url.rstrip("/"), client_id, client_secret)


@dataclass
class ControlPlane:
    """The service's API for a caller with credentials. Raises `Refused` for what it refuses, `Unreachable` else."""

    http: "httpx.Client"
    credentials: Credentials
    sleep: Callable[[float], None]
    _token: str | None = None
    _renew_at: float = 0.0

    def get(self, path: str, **params: object) -> Any:
        return self._json("GET", path, params=_present(params), repeatable=True)

    def post(self, path: str, body: object = None, *, idempotency_key: str | None = None) -> Any:
        """Sent again after a cut only where the service knows it again by its key."""
        headers = {} if idempotency_key is None else {"Idempotency-Key": idempotency_key}
        repeatable = idempotency_key is not None
        try:
            return self._json("POST", path, body=body, headers=headers, repeatable=repeatable)
        except Unreachable as failure:
            if idempotency_key is not None:
                raise Unreachable(
                    failure.reason,
                    f"it may have been done; repeat the command with --idempotency-key {idempotency_key}: "
                    "it is not done twice",
                ) from None
            raise

    def write(
        self, method: str, path: str, body: object = None, *, version: int | None = None, **params: object
    ) -> Any:
        """PUT, PATCH or DELETE; with `version` only where the document still has it, or where there is none still."""
        headers = {} if version is None else {"If-Match": f'"{version}"'}
        if version == ABSENT:
            headers = {"If-None-Match": "*"}
        # With a version, a second one would be refused although the first was carried out.
        return self._json(method, path, body=body, headers=headers, params=_present(params), repeatable=version is None)

    def get_or_none(self, path: str) -> Any:
        """What is there; None where nothing is."""
        try:
            return self.get(path)
        except Refused as failure:
            if failure.status != HTTPStatus.NOT_FOUND:
                raise
            return None

    def edit(self, path: str, change: Callable[[dict[str, Any]], dict[str, Any]], **params: object) -> Any:
        """Read a layer of configuration, change and write it if nobody else has.

        Otherwise the change is made on what they wrote. A layer that says nothing is empty, and is written only where
        it still says nothing.
        """
        for left in reversed(range(ATTEMPTS)):
            layer = self.get_or_none(path)
            document, version = ({}, ABSENT) if layer is None else (layer["document"], layer["version"])
            try:
                return self.write("PUT", path, change(document), version=version, **params)
            except Refused as failure:
                if failure.type != "stale-version" or not left:
                    raise
        raise AssertionError  # pragma: no cover - the last attempt returns or raises

    def upload(self, path: str, content: bytes) -> Any:
        """PUT a file; its type is told by its content."""
        headers = {"Content-Type": "application/octet-stream"}
        response = self._attempt(
            lambda: self.http.put(path, content=content, headers=self._authorization() | headers), repeatable=True
        )
        if not response.is_success:
            raise Refused.by(response)
        return self._read(response)

    def pages(self, path: str, **params: object) -> Iterator[dict[str, Any]]:
        """Every item of a list."""
        cursor: str | None = None
        while True:
            page = self.get(path, **{"limit": PAGE, **params, "cursor": cursor})
            yield from page["items"]
            if (cursor := page["next_cursor"]) is None:
                return

    def page(self, path: str, *, limit: int, everything: bool, **params: object) -> dict[str, Any]:
        """The first page of a list, or with `everything` all of it in one."""
        if everything:
            return {"items": list(self.pages(path, **params)), "next_cursor": None}
        page: dict[str, Any] = self.get(path, limit=limit, **params)
        return page

    def download(self, path: str, write: Callable[[bytes], object], **params: object) -> None:
        """Hand the body to `write`, piece by piece."""
        import httpx  # noqa: PLC0415 - see the module

        try:
            with self.http.stream("GET", path, params=_present(params), headers=self._authorization()) as response:
                if not response.is_success:
                    response.read()
                    raise Refused.by(response)
                for piece in response.iter_bytes():
                    write(piece)
        except httpx.TransportError as error:
            raise self._unreachable(error) from None

    def find_tenant(self, reference: str) -> dict[str, Any]:
        """The tenant of this id, external id or slug. Raises `CommandFailed` where those are two tenants."""
        known = None
        try:
            known = self.get(tenant_path(reference))
        except Refused as failure:
            if failure.status != HTTPStatus.NOT_FOUND or _is_id(reference):
                raise
            missing = failure
        if known is not None and _is_id(reference):
            return dict(known)
        named = self._find_slug(reference)
        if known is None and named is None:
            raise Refused(f"no tenant has the id, external id or slug {reference!r}", missing.next_step)
        if known is not None and named is not None and known["id"] != named["id"]:
            raise CommandFailed(
                f"{reference!r} is the external id of one tenant and the slug of another",
                f"use the id: {known['id']} ({known['slug']}) or {named['id']} ({named['slug']})",
            )
        return dict(known or named or {})

    def _find_slug(self, slug: str) -> dict[str, Any] | None:
        try:
            return next((each for each in self.pages("/v1/tenants", q=slug) if each["slug"] == slug), None)
        except Refused as failure:
            if failure.status == HTTPStatus.FORBIDDEN:  # a tenant's own credential: it sees that tenant alone
                return None
            raise

    def _json(
        self,
        method: str,
        path: str,
        *,
        repeatable: bool,
        body: object = None,
        headers: Mapping[str, str] | None = None,
        params: Mapping[str, str] | None = None,
    ) -> Any:
        try:
            content = None if body is None else json.dumps(body, allow_nan=False).encode()
        except ValueError as error:
            raise Misused(f"that cannot be sent: {error}") from None

        def request(authorization: Mapping[str, str]) -> "httpx.Response":
            sent = {**(headers or {}), **authorization, "Content-Type": "application/json"}
            return self.http.request(method, path, content=content, headers=sent, params=params)

        response = self._attempt(lambda: request(self._authorization()), repeatable=repeatable)
        if response.status_code == HTTPStatus.UNAUTHORIZED:
            self._token = None  # revoked, or signed with a key that is gone: a new one may do
            response = self._attempt(lambda: request(self._authorization()), repeatable=repeatable)
        if not response.is_success:
            raise Refused.by(response)
        return self._read(response) if response.content else None

    def _read(self, response: "httpx.Response") -> Any:
        try:
            return response.json()
        except ValueError:
            raise CommandFailed(
                f"what answers at {self.credentials.url} is not the tenant service", "set TENANTRY_TENANT_URL"
            ) from None

    def _authorization(self) -> dict[str, str]:
        if self._token is None or monotonic() > self._renew_at:
            grant = {
                "grant_type": "client_credentials",
                "client_id": self.credentials.client_id,
                "client_secret": self.credentials.client_secret,
                "audience": "tenant",
            }
            response = self._attempt(lambda: self.http.post("/oauth/token", data=grant), repeatable=True)
            if not response.is_success:
                raise Refused.by(response)
            answer = self._read(response)
            self._token = str(answer["access_token"])
            self._renew_at = monotonic() + answer["expires_in"] - _RENEW_SECONDS
        return {"Authorization": f"Bearer {self._token}"}

    def _attempt(self, send: "Callable[[], httpx.Response]", *, repeatable: bool) -> "httpx.Response":
        import httpx  # noqa: PLC0415 - see the module
        from tenacity import Retrying, retry_if_exception, retry_if_result, stop_after_attempt  # noqa: PLC0415

        def may_go_again(error: BaseException) -> bool:
            # What was never sent can be sent again, whatever it is.
            return isinstance(error, httpx.TransportError if repeatable else (httpx.ConnectError, httpx.ConnectTimeout))

        def passes(response: "httpx.Response") -> bool:
            return response.status_code in (_PASSING if repeatable else {HTTPStatus.TOO_MANY_REQUESTS})

        retrying = Retrying(
            retry=retry_if_exception(may_go_again) | retry_if_result(passes),
            wait=_wait,
            stop=stop_after_attempt(ATTEMPTS),
            sleep=self.sleep,
            retry_error_callback=_last,
        )
        try:
            response: httpx.Response = retrying(send)
        except (httpx.TransportError, httpx.InvalidURL, httpx.UnsupportedProtocol) as error:
            raise self._unreachable(error) from None
        return response

    def _unreachable(self, error: Exception) -> Unreachable:
        return Unreachable(
            f"the tenant service at {self.credentials.url} gives no answer ({str(error) or type(error).__name__})",
            "start it with `make up`, or set TENANTRY_TENANT_URL to where it is",
        )


@contextmanager
def connect(*, timeout: float = TIMEOUT_SECONDS, file: Path | None = None) -> Iterator[ControlPlane]:
    """The service that the environment names. Nothing is sent yet."""
    import time  # noqa: PLC0415 - beside httpx

    import httpx  # noqa: PLC0415 - see the module

    credentials = find_credentials(os.environ, file)
    try:
        http = httpx.Client(
            base_url=credentials.url, timeout=httpx.Timeout(timeout, connect=min(timeout, CONNECT_SECONDS))
        )
    except httpx.InvalidURL as error:
        raise CommandFailed(f"{credentials.url!r} is no address: {error}", "set TENANTRY_TENANT_URL") from None
    with http:
        yield ControlPlane(http, credentials, time.sleep)


def tenant_path(reference: str, *more: str) -> str:
    """The address of a tenant, or of something of its."""
    return path_of("v1", "tenants", reference, *more)


def path_of(*parts: str) -> str:
    """An address whose parts may hold any characters. Raises `Misused` for a part that would name another address."""
    for part in parts:
        if part in {"", ".", ".."}:
            raise Misused(f"{part!r} names nothing")
    return "/" + "/".join(quote(part, safe="") for part in parts)


def new_key(key: str | None) -> str:
    """The key that a creation is known by when it is sent again: the caller's, or a new one."""
    return key or str(uuid.uuid4())


def _is_id(reference: str) -> bool:
    try:
        uuid.UUID(reference)
    except ValueError:
        return False
    return True


def _present(params: Mapping[str, object]) -> dict[str, str]:
    return {
        name: str(value).lower() if isinstance(value, bool) else str(value)
        for name, value in params.items()
        if value is not None
    }


def _wait(state: "RetryCallState") -> float:
    outcome = state.outcome
    seconds = 0.2 * float(2**state.attempt_number)
    if (
        outcome is not None
        and not outcome.failed
        and (told := outcome.result().headers.get("Retry-After", "")).isdigit()
    ):
        seconds = max(seconds, float(told))
    return min(seconds, _LONGEST_WAIT)


def _last(state: "RetryCallState") -> Any:
    """The last attempt's answer, or its error raised."""
    return state.outcome and state.outcome.result()
