"""A bound on request bodies that holds for declared and for streamed lengths."""

from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tenantry._errors import MalformedRequest, PayloadTooLarge, TenantryError
from tenantry.http._problems import problem
from tenantry.http._routes import RouteRules

DEFAULT_MAX_BODY_BYTES: Final = 1024 * 1024


class BodyLimitMiddleware:
    """Answers 413 to a body of more than `max_bytes`, before it is read where its length is declared.

    `overrides` are other limits for single routes, as in `{"PUT /v1/files/{name}": 32 * 1024 * 1024}`.
    """

    def __init__(
        self, app: ASGIApp, *, max_bytes: int = DEFAULT_MAX_BODY_BYTES, overrides: dict[str, int] | None = None
    ) -> None:
        self._app = app
        self._max_bytes = max_bytes
        self._overrides = RouteRules(overrides or {})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        limit = self._overrides.find(scope["method"], scope["path"], self._max_bytes)
        try:
            declared = _declared_length(scope)
            if declared is not None and declared > limit:
                raise _too_large(limit)
        except TenantryError as error:
            await problem(error, scope["path"])(scope, receive, send)
            return
        received = 0

        async def counted() -> Message:
            nonlocal received
            message = await receive()
            if message["type"] == "http.request":
                received += len(message.get("body", b""))
                if received > limit:
                    raise _too_large(limit)
            return message

        await self._app(scope, counted, send)


def _declared_length(scope: Scope) -> int | None:
    for name, value in scope["headers"]:
        if name == b"content-length":
            if not value.isdigit():
                raise MalformedRequest("The header Content-Length is not a number.")
            return int(value)
    return None


def _too_large(limit: int) -> PayloadTooLarge:
    return PayloadTooLarge(f"The body has more than {limit} bytes.")
