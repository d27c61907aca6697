"""Tenants over HTTP: the tenant service's own list, or a company's."""

import asyncio
from collections.abc import Mapping
from typing import Any, Final

import httpx
import msgspec

from tenantry.directory._listing import InvalidListing, Listing

_MAX_BYTES: Final = 128 << 20
_MAX_PAGES: Final = 10_000
_TIMEOUT: Final = httpx.Timeout(10.0)


class TenantEndpoint:
    """A URL that answers with JSON: a list of tenants, or an object that has them in `items`.

    An object may have a `next_cursor`: the next page is then asked for with `?cursor=`. A list of one page is asked for
    with its ETag, so that an unchanged one costs no more than a question. Redirects are not followed: the header that
    says who asks is for this address.
    """

    name = "http"

    def __init__(
        self,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        items: str = "items",
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        """`headers` are sent along, such as Authorization; `items` is where an object has its tenants."""
        self._url = httpx.URL(url)
        self._headers = dict(headers or {})
        self._items = items
        self._transport = transport
        self._etag: str | None = None
        self._client: httpx.AsyncClient | None = None

    async def read(self) -> Listing:
        """Raises httpx's errors, and `InvalidListing` for an answer that is not a list of tenants."""
        records: list[Mapping[str, Any]] = []
        cursor: str | None = None
        for _ in range(_MAX_PAGES):
            body, etag = await self._get(cursor)
            if body is None:
                return Listing(unchanged=True)
            page, following = self._page(body)
            records += page
            if following is None:
                self._etag = etag if cursor is None else None
                return Listing(records=records)
            if following == cursor:
                break
            cursor = following
        raise InvalidListing("the pages have no end")

    async def changed(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    async def close(self) -> None:
        self._etag = None
        if self._client is not None:
            client, self._client = self._client, None
            await client.aclose()

    async def _get(self, cursor: str | None) -> tuple[bytes | None, str | None]:
        """The body, None where it is what was read the last time, and its ETag."""
        if self._client is None:
            self._client = httpx.AsyncClient(timeout=_TIMEOUT, headers=self._headers, transport=self._transport)
        url = self._url if cursor is None else self._url.copy_set_param("cursor", cursor)
        condition = {"If-None-Match": self._etag} if self._etag is not None and cursor is None else {}
        async with self._client.stream("GET", url, headers=condition) as response:
            if response.status_code == httpx.codes.NOT_MODIFIED and condition:
                return None, self._etag
            if response.status_code != httpx.codes.OK:
                # Not `raise_for_status`: its message has the whole address.
                raise InvalidListing(f"answered {response.status_code}")
            body = bytearray()
            async for part in response.aiter_bytes():
                body += part
                if len(body) > _MAX_BYTES:
                    raise InvalidListing(f"a page has more than {_MAX_BYTES} bytes")
            return bytes(body), response.headers.get("ETag")

    def _page(self, body: bytes) -> tuple[list[Mapping[str, Any]], str | None]:
        try:
            content = msgspec.json.decode(body)
        except msgspec.DecodeError as error:
            raise InvalidListing("the answer is not JSON") from error
        following = None
        if isinstance(content, dict):
            following = content.get("next_cursor")
            content = content.get(self._items)
        if not isinstance(content, list) or not all(isinstance(item, dict) for item in content):
            raise InvalidListing(f"the answer is neither a list of tenants nor an object with {self._items}")
        if following is not None and not isinstance(following, str):
            raise InvalidListing("next_cursor is not a text")
        return content, following
