"""The bytes of a request, read and unpacked within the memory that is held for them."""

from __future__ import annotations

from typing import Final

from starlette.requests import ClientDisconnect
from starlette.types import Receive

from tenantry import MalformedRequest, PayloadTooLarge, SharedTimeout, TenantryError
from usage_service.ingest.codings import BrokenPacking, TooLargeUnpacked, unpack
from usage_service.ingest.heads import Head
from usage_service.ingest.memory import Holding

READ_SECONDS: Final = 30.0
"""How long a body may take to come in: it has its memory for so long."""


class BodyTooSlow(TenantryError):
    """The memory that a request holds is not for a client that does not send."""

    status = 408
    type = "body-too-slow"
    title = "The body did not come in time"


async def read_body_bytes(
    receive: Receive, head: Head, holding: Holding, *, limit: int, within: SharedTimeout
) -> bytes:
    """The body as it was before it was packed, of `limit` bytes at most; it comes in `within` a time.

    Raises PayloadTooLarge (413), MalformedRequest (400), BodyTooSlow (408), what `Holding.hold` raises (429, 503), and
    Starlette's ClientDisconnect.
    """
    body = await _receive(receive, holding, within)
    if head.coding is None:
        return body
    # Before it is unpacked nobody knows into how much; it is bounded here and counted right behind.
    try:
        body = unpack(body, head.coding, limit=limit)
    except TooLargeUnpacked:
        raise PayloadTooLarge(f"The body has more than {limit} bytes when it is unpacked.") from None
    except BrokenPacking as error:
        raise MalformedRequest(f"The body cannot be unpacked as {head.coding.value}: {error}.") from None
    holding.hold(len(body))
    return body


async def _receive(receive: Receive, holding: Holding, within: SharedTimeout) -> bytes:
    parts: list[bytes] = []
    size = 0
    try:
        with within():
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise ClientDisconnect
                if part := message.get("body", b""):
                    parts.append(part)
                    size += len(part)
                    holding.hold(size)
                if not message.get("more_body", False):
                    return parts[0] if len(parts) == 1 else b"".join(parts)
    except TimeoutError:
        raise BodyTooSlow(f"The body did not come in {within.seconds:.0f} seconds.") from None
