"""Metered events on disk until Kafka has them: one write before the response, so a killed process loses nothing."""

import errno
import os
import threading
from pathlib import Path
from typing import Final, Literal

import structlog
from prometheus_client import Counter, Gauge

from tenantry import Unavailable
from tenantry.metering._frames import frame
from tenantry.metering._segments import SegmentDirectory, set_aside

log = structlog.get_logger(__name__)

APPENDED = Counter("spool_events_total", "Events written to the spool")
DROPPED = Counter("spool_dropped_total", "Events dropped because the spool was full")
REFUSED = Counter("spool_refused_total", "Events refused because the spool was full")
BYTES = Gauge("spool_bytes", "Bytes of events that are not shipped yet")

_SEGMENT_BYTES: Final = 8 << 20
_SYNC_SECONDS: Final = 0.1
# Kafka must take it later, and it must fit a frame.
MAX_EVENT_BYTES: Final = 900_000
_RETRY_AFTER: Final = 5

OnFull = Literal["refuse", "drop"]


class SpoolFull(Unavailable):
    """The spool holds its bound of bytes, or the disk is full: this write is refused, an earlier one is safe."""


class Spool:
    """The segment files of this process below a directory. `append` is thread-safe.

    What `append` has written survives the death of the process. Against loss of power it is synced every 100 ms, by a
    thread, so that no request waits for a disk.
    """

    def __init__(
        self,
        directory: Path | str,
        max_bytes: int = 1 << 30,
        on_full: OnFull = "refuse",
        *,
        segment_bytes: int = _SEGMENT_BYTES,
    ) -> None:
        self.root = Path(directory)
        self.max_bytes = max_bytes
        self._on_full = on_full
        self._segment_bytes = segment_bytes
        self._directory = SegmentDirectory.create(self.root)
        self._write_lock = threading.Lock()
        self._number = 0
        self._file = self._open()
        self._written = 0  # bytes in the current segment
        self._held = 0  # bytes in all segments
        self._dirty = threading.Event()
        self._closing = threading.Event()
        self._syncer = threading.Thread(target=self._sync_for_ever, name="spool sync", daemon=True)
        self._syncer.start()

    @property
    def path(self) -> Path:
        """The directory of this process's segments."""
        return self._directory.path

    @property
    def held_bytes(self) -> int:
        """Bytes on disk, shipped parts of unfinished segments included."""
        return self._held

    def append(self, key: bytes, value: bytes) -> bool:
        """Writes an event with its partition key; True when it is on its way to the disk, False when it was dropped.

        One system call. A full spool raises `SpoolFull` (503) or drops and counts, as it was set up to. An event of
        more than 900,000 bytes is a `ValueError`.
        """
        if len(key) + len(value) > MAX_EVENT_BYTES:
            raise ValueError(f"an event has at most {MAX_EVENT_BYTES} bytes")
        data = frame(key, value)
        size = len(data)
        with self._write_lock:
            if self._held + size > self.max_bytes or not self._write(data):
                return self._full()
            self._written += size
            self._held += size
            if self._written >= self._segment_bytes:
                self._rotate()
        if not self._dirty.is_set():
            self._dirty.set()
        APPENDED.inc()
        return True

    def close(self) -> None:
        """Syncs and lets go; what is not shipped stays for whoever adopts the directory."""
        if self._closing.is_set():
            return
        self._closing.set()
        self._dirty.set()
        self._syncer.join()
        os.fsync(self._file)
        os.close(self._file)
        if self._written == 0:
            self._directory.segment(self._number).unlink()
        self._directory.release()

    # For the shipper.

    def readable(self) -> list[tuple[Path, int]]:
        """Every segment with the bytes that are whole in it, oldest first; the last one still grows."""
        with self._write_lock:
            current = self._directory.segment(self._number)
            return [
                (path, self._written if path == current else path.stat().st_size) for path in self._directory.segments()
            ]

    def discard(self, path: Path, shipped: int) -> bool:
        """Frees a segment of which `shipped` bytes have arrived, if that is all of it; says whether it was."""
        with self._write_lock:
            if path == self._directory.segment(self._number):
                if shipped < self._written:
                    return False
                os.ftruncate(self._file, 0)
                self._written = 0
            else:
                path.unlink()
            self._held -= shipped
            BYTES.set(self._held)
        return True

    def _open(self) -> int:
        return os.open(
            self._directory.segment(self._number),
            os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC,
            0o600,
        )

    def _write(self, data: bytes) -> bool:
        try:
            written = os.write(self._file, data)
        except OSError as error:
            if error.errno not in {errno.ENOSPC, errno.EDQUOT}:
                raise
            written = 0
        if written < len(data):
            # A part of a frame in the middle of a segment would hide everything behind it.
            os.ftruncate(self._file, self._written)
            return False
        return True

    def _full(self) -> bool:
        if self._on_full == "drop":
            DROPPED.inc()
            return False
        REFUSED.inc()
        raise SpoolFull("the spool of metered events is full", retry_after=_RETRY_AFTER)

    def set_aside(self, path: Path) -> None:
        """Keeps a damaged segment for a person; if it is the one that grows, another is begun."""
        with self._write_lock:
            if path == self._directory.segment(self._number):
                self._rotate()
            self._held -= path.stat().st_size
            set_aside(path)

    # Under the write lock.

    def _rotate(self) -> None:
        os.fsync(self._file)
        os.close(self._file)
        self._number += 1
        self._file = self._open()
        self._written = 0

    def _sync_for_ever(self) -> None:
        while not self._closing.is_set():
            self._dirty.wait()
            self._closing.wait(_SYNC_SECONDS)
            # Cleared before the sync: what is written after this sets it again.
            self._dirty.clear()
            with self._write_lock:
                # A descriptor of its own, as a rotation may close the segment's meanwhile.
                file = os.dup(self._file)
            try:
                os.fsync(file)
            except OSError as error:
                log.critical("spool_sync_failed", path=str(self.path), error=repr(error))
            finally:
                os.close(file)
