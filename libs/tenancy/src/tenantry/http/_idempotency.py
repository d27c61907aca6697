"""`Idempotency-Key`: the same request again gets the first answer again, for 24 hours.

The key is claimed by a row of the request's own transaction, and the answer is stored in it before the commit. So what
a request did and what it answered become true together, a failed request leaves no claim, and a second request that
comes while the first is under way waits for it at the row and then replays it.
"""

import hashlib
import re
from collections.abc import Awaitable, Callable, Coroutine
from http import HTTPStatus
from typing import Annotated, Any, Final
from uuid import UUID

import msgspec
from fastapi import Header
from fastapi.routing import APIRoute
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession
from starlette.requests import Request
from starlette.responses import Response

from tenantry._context import current_tenant_or_none
from tenantry._errors import IdempotencyConflict, MalformedRequest, SecretAlreadyShown
from tenantry.http._routes import route_template
from tenantry.http._scopes import CurrentPrincipal
from tenantry.identity import Principal

# Whose keys those are that a caller sends without a tenant: operators and services. No tenant ever has this id, so
# under row level security only the system role meets them.
NO_TENANT: Final = UUID(int=0)

_CLAIM_KEY: Final = "tenantry.idempotency"
_KEY: Final = re.compile(r"[\x21-\x7e]{1,255}", re.ASCII)
# Of the first answer these say something about what it made; the others are about the connection.
_KEPT_HEADERS: Final = frozenset({b"content-type", b"location", b"etag"})

_CLAIM: Final = text(
    """
    INSERT INTO system.idempotency_key (tenant_id, credential, route, key, body_hash, created_at)
    VALUES (:tenant_id, :credential, :route, :key, :body_hash, clock_timestamp())
    ON CONFLICT (tenant_id, credential, route, key) DO UPDATE
    SET body_hash = EXCLUDED.body_hash, status = NULL, response = NULL, created_at = EXCLUDED.created_at
    WHERE idempotency_key.created_at < clock_timestamp() - interval '24 hours'
    RETURNING true
    """
)
_FIND: Final = text(
    """
    SELECT body_hash, status, response FROM system.idempotency_key
    WHERE tenant_id = :tenant_id AND credential = :credential AND route = :route AND key = :key
    """
)
_STORE: Final = text(
    """
    UPDATE system.idempotency_key SET status = :status, response = :response
    WHERE tenant_id = :tenant_id AND credential = :credential AND route = :route AND key = :key
    """
)
_RELEASE: Final = text(
    """
    DELETE FROM system.idempotency_key
    WHERE tenant_id = :tenant_id AND credential = :credential AND route = :route AND key = :key
    """
)
_EXPIRE: Final = text(
    """
    WITH expired AS (
        DELETE FROM system.idempotency_key WHERE created_at < clock_timestamp() - interval '24 hours' RETURNING 1
    )
    SELECT count(*) FROM expired
    """
)


class _Answer(msgspec.Struct, array_like=True):
    headers: list[tuple[bytes, bytes]]
    body: bytes


_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(_Answer).decode


class _Replay(Exception):
    def __init__(self, response: Response) -> None:
        super().__init__("replay")
        self.response = response


class _Claim:
    def __init__(self, session: AsyncSession, identity: dict[str, Any], *, secret: bool) -> None:
        self._session = session
        self._identity = identity
        self._secret = secret

    async def take(self, body_hash: bytes) -> None:
        """Claims the key; raises `_Replay`, or the error, where it is taken."""
        if await self._session.scalar(_CLAIM, {**self._identity, "body_hash": body_hash}):
            return
        known = (await self._session.execute(_FIND, self._identity)).one()
        if known.body_hash != body_hash:
            raise IdempotencyConflict("This Idempotency-Key was used for another request within 24 hours.")
        if known.response is None:
            raise SecretAlreadyShown("The first answer held a secret, which is shown once; make a new one.")
        answer = _decode(known.response)
        response = Response(answer.body, known.status)
        response.raw_headers = [*answer.headers, (b"content-length", b"%d" % len(answer.body))]
        response.headers["Idempotency-Replayed"] = "true"
        raise _Replay(response)

    async def store(self, response: Response) -> None:
        """Stores what the route answered; an error that it returned, and did not raise, leaves no claim."""
        if response.status_code >= HTTPStatus.BAD_REQUEST:
            await self._session.execute(_RELEASE, self._identity)
            return
        headers = [(name, value) for name, value in response.raw_headers if name in _KEPT_HEADERS]
        answer = None if self._secret else _encode(_Answer(headers, bytes(response.body)))
        await self._session.execute(_STORE, {**self._identity, "status": response.status_code, "response": answer})


class IdempotentRoute(APIRoute):
    """The route class of routers on which `idempotent` is used: it stores the answer before the session commits."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def handle_once(request: Request) -> Response:
            try:
                response = await handle(request)
            except _Replay as replay:
                return replay.response
            claim: _Claim | None = request.scope.get(_CLAIM_KEY)
            if claim is not None:
                await claim.store(response)
            return response

        return handle_once


def idempotent(session: Any, *, secret: bool = False) -> Callable[..., Awaitable[None]]:
    """A dependency that makes a route repeatable by `Idempotency-Key`; without the header it does nothing.

    `session` is the annotated dependency whose transaction the route works in, such as `TenantSession`; its scope must
    be "function". `secret` says that the answer holds a secret: it is not stored, and a repetition is refused with 409
    `secret-already-shown`. The router's `route_class` must be `IdempotentRoute`:

        router = APIRouter(route_class=IdempotentRoute)

        @router.post("/documents", dependencies=[Depends(idempotent(TenantSession))])

    The same key of the same caller with another path, query or body is 409 `idempotency-conflict`.
    """

    async def claim(
        request: Request,
        session: AsyncSession,
        principal: CurrentPrincipal,
        idempotency_key: Annotated[
            str | None, Header(description="Repeats with the same key within 24 hours get the first answer.")
        ] = None,
    ) -> None:
        if idempotency_key is None:
            return
        if _KEY.fullmatch(idempotency_key) is None or len(request.headers.getlist("idempotency-key")) > 1:
            raise MalformedRequest("The header Idempotency-Key is not one key of 1 to 255 visible ASCII characters.")
        taken = _Claim(session, _identity(request, principal, idempotency_key), secret=secret)
        await taken.take(await _hash(request))
        request.scope[_CLAIM_KEY] = taken

    # FastAPI shares the session with the route because both name the same dependency.
    claim.__annotations__["session"] = session
    return claim


async def delete_expired_idempotency_keys(session: AsyncSession | AsyncConnection) -> int:
    """Deletes the keys of more than 24 hours and returns how many; the caller commits. May be repeated.

    A session of the system role deletes those of everybody, a tenant's session that tenant's.
    """
    deleted: int = (await session.execute(_EXPIRE)).scalar_one()
    return deleted


def _identity(request: Request, principal: Principal, key: str) -> dict[str, Any]:
    # One person may be a user of two tenants, under the same subject: neither may meet the other's keys.
    tenant = current_tenant_or_none()
    return {
        "tenant_id": NO_TENANT if tenant is None else tenant.id,
        "credential": principal.credential_id,
        "route": f"{request.method} {route_template(request.scope)}",
        "key": key,
    }


async def _hash(request: Request) -> bytes:
    tenant = current_tenant_or_none()
    digest = hashlib.sha256()
    for part in (
        request.scope["path"].encode(),
        request.scope["query_string"],
        b"" if tenant is None else tenant.id.bytes,
        await request.body(),
    ):
        # With its length, so that no two requests run together into the same bytes.
        digest.update(len(part).to_bytes(8, "big"))
        digest.update(part)
    return digest.digest()
