"""Where the archive is: a directory, or what obstore knows by URL, with credentials from the variables of that cloud.

An object is durable when `put` returns: a directory is synced, a cloud answers when it has it.
"""

from __future__ import annotations

import asyncio
import hashlib
import io
import os
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import IO, Any, Final
from urllib.parse import unquote, urlsplit

import obstore
import structlog
from obstore.exceptions import BaseError, NotFoundError
from obstore.store import LocalStore, ObjectStore, from_url

from tenantry import StartupRefused, uuid7

_PIECE: Final = 8 << 20
_PROBES: Final = "probes"
_ABANDONED_SECONDS: Final = 24 * 3600.0
_UNUSABLE: Final = (BaseError, OSError, ValueError)
_TRIED_SECONDS: Final = 10.0
_SOON: Final = {"max_retries": 2, "retry_timeout": timedelta(seconds=10)}
_SHORT: Final = {"timeout": "20s"}

log = structlog.get_logger(__name__)


class MissingObject(Exception):
    """An object that the manifest names is not in the store, or was replaced a moment ago."""


class ArchiveStore:
    """The blob store of the archive. Errors of the store are obstore's and OSError."""

    def __init__(self, store: ObjectStore, directory: Path | None = None) -> None:
        """`directory` is where `store` keeps its files, if it does."""
        self._store = store
        self._directory = directory

    @classmethod
    async def open(cls, url: str | None, default: Path) -> ArchiveStore:
        """The store at a URL, or in a directory by default, tried by listing, writing, reading and deleting.

        Raises `StartupRefused` with what is wrong, without the URL: it may hold a password.
        """
        with _usable():
            opened = await asyncio.to_thread(_open, url, default)
            await opened.check()
        return opened

    @classmethod
    async def open_to_read(cls, url: str | None, default: Path) -> ArchiveStore:
        """The store for requests, which give up on it after seconds. It may be away: then only what reads it fails.

        Raises `StartupRefused` for what is no store at all.
        """
        with _usable():
            opened = await asyncio.to_thread(_open, url, default, retry_config=_SOON, client_options=_SHORT)
        try:
            async with asyncio.timeout(_TRIED_SECONDS):
                await opened.check(to_write=False)
        except _UNUSABLE as error:
            log.warning("archive_away", error=type(error).__name__)
        return opened

    async def put(self, path: str, file: IO[bytes]) -> None:
        """Writes an object from a file; it is durable then. An object that is half written has no name."""
        file.seek(0)
        await obstore.put_async(self._store, path, file)
        if self._directory is not None:
            await asyncio.to_thread(_sync, self._directory, self._directory / path)

    async def fetch(self, path: str, out: IO[bytes]) -> bytes:
        """Writes an object's bytes into a file; their SHA-256. Raises `MissingObject`."""
        digest = hashlib.sha256()
        try:
            found = await obstore.get_async(self._store, path)
            async for piece in found.stream(min_chunk_size=_PIECE):
                digest.update(piece)
                await asyncio.to_thread(out.write, piece)
        except (NotFoundError, FileNotFoundError) as error:
            raise MissingObject(path) from error
        await asyncio.to_thread(out.flush)
        return digest.digest()

    @contextmanager
    def open_object(self, path: str) -> Iterator[io.RawIOBase]:
        """An object to be read in ranges, by a thread. Raises `MissingObject`, here and while it is read."""
        try:
            yield _Ranges(self._store, path)
        except (NotFoundError, FileNotFoundError) as error:
            raise MissingObject(path) from error

    async def delete(self, path: str) -> None:
        """May be repeated."""
        with suppress(NotFoundError, FileNotFoundError):
            await obstore.delete_async(self._store, path)

    async def paths(self, prefix: str) -> AsyncIterator[str]:
        """The objects of a folder, in no order."""
        async for part in obstore.list(self._store, prefix=prefix):
            for found in part:
                yield found["path"]

    async def clear_abandoned(self) -> int:
        """Deletes what killed writers have left in a directory; how many files.

        A cloud keeps parts of an upload that was not completed, which a rule of the bucket ends.
        """
        if self._directory is None:
            return 0
        return await asyncio.to_thread(_clear_staged, self._directory, time.time() - _ABANDONED_SECONDS)

    async def check(self, *, to_write: bool = True) -> None:
        """Lists, and writes, reads and deletes. Raises ValueError where it reads another, and obstore's errors."""
        async for _ in self.paths(_PROBES):
            break
        if not to_write:
            return
        path, value = f"{_PROBES}/{uuid7()}", b"can be written and read"
        await obstore.put_async(self._store, path, value)
        if bytes(await (await obstore.get_async(self._store, path)).bytes_async()) != value:
            raise ValueError("reads something else than was written")
        await obstore.delete_async(self._store, path)


class _Ranges(io.RawIOBase):
    """An object as a file, of which only what is read is fetched: pyarrow asks for whole column chunks."""

    def __init__(self, store: ObjectStore, path: str) -> None:
        self._store = store
        self._path = path
        self._size = obstore.head(store, path)["size"]
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        return self._at

    def read(self, size: int = -1) -> bytes:
        end = self._size if size < 0 else min(self._size, self._at + size)
        if end <= self._at:
            return b""
        found = bytes(obstore.get_range(self._store, self._path, start=self._at, end=end))
        self._at = end
        return found


@contextmanager
def _usable() -> Iterator[None]:
    try:
        yield
    except _UNUSABLE as error:
        raise StartupRefused(f"USAGE_ARCHIVE_URL cannot be used: {type(error).__name__}") from error


def _open(url: str | None, default: Path, **options: Any) -> ArchiveStore:
    parts = urlsplit(default.absolute().as_uri() if url is None else url)
    if parts.scheme != "file":
        return ArchiveStore(from_url(parts.geturl(), **options))
    directory = Path(unquote(parts.path))
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    return ArchiveStore(LocalStore(directory), directory)


def _sync(root: Path, file: Path) -> None:
    """The file, and every folder down to it, since they may be new."""
    for place in (file, *(each for each in file.parents if each.is_relative_to(root))):
        number = os.open(place, os.O_RDONLY)
        try:
            os.fsync(number)
        finally:
            os.close(number)


def _clear_staged(root: Path, before: float) -> int:
    # obstore writes `name#1` and renames it.
    cleared = 0
    for file in root.rglob("*.parquet#*"):
        with suppress(FileNotFoundError):
            if file.stat().st_mtime < before:
                file.unlink()
                cleared += 1
    return cleared
