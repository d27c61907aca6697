"""Tenants in a file."""

import asyncio
import tomllib
from pathlib import Path
from typing import Any, Final

import msgspec

from tenantry._tenant import Tier
from tenantry.directory._listing import InvalidListing, Listing

_LOOK_SECONDS: Final = 1.0


class _Document(msgspec.Struct, forbid_unknown_fields=True):
    tenants: list[dict[str, Any]]
    tiers: list[dict[str, Any]] = []


class TenantFile:
    """A TOML or JSON file with a list `tenants` and, where tenants have different rights, a list `tiers`.

    It is read again when it has changed. One that cannot be read leaves the directory as it was.
    """

    name = "static"

    def __init__(self, path: Path) -> None:
        self._path = path
        self._read: tuple[int, int, int] | None = None

    async def read(self) -> Listing:
        """Raises `OSError`, or `InvalidListing` with the place in the file that is wrong."""
        # Marked before it is read: a change in between is seen the next time.
        mark = self._mark()
        if mark == self._read:
            return Listing(unchanged=True)
        text = await asyncio.to_thread(self._path.read_bytes)
        try:
            content = tomllib.loads(text.decode()) if self._path.suffix == ".toml" else msgspec.json.decode(text)
            document = msgspec.convert(content, _Document)
            tiers = [msgspec.convert({"version": 1, **tier}, Tier) for tier in document.tiers]
        except (msgspec.MsgspecError, ValueError) as error:
            raise InvalidListing(f"{self._path.name}: {error}") from error
        self._read = mark
        return Listing(records=document.tenants, tiers=tiers)

    async def changed(self, seconds: float) -> None:
        await asyncio.sleep(min(seconds, _LOOK_SECONDS))

    async def close(self) -> None:
        """Nothing is kept open."""

    def _mark(self) -> tuple[int, int, int]:
        found = self._path.stat()
        return found.st_mtime_ns, found.st_size, found.st_ino
