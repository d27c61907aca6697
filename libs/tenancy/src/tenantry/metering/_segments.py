"""The directory of one process's spool: numbered segment files, and a lock that dies with the process."""

import fcntl
import os
from pathlib import Path
from typing import Final
from uuid import uuid4

from prometheus_client import Counter

_LOCK: Final = "lock"
_SUFFIX: Final = ".events"
_NEW: Final = ".new-"
_DIGITS: Final = 12
_DAMAGED: Final = ".damaged"

DAMAGED = Counter("spool_damaged_total", "Segments set aside because they cannot be read to their end")


class SegmentDirectory:
    """A directory of segments, held by its flock: the kernel frees it when the process ends, however it ends."""

    def __init__(self, path: Path, lock: int) -> None:
        self.path = path
        self._lock = lock

    @classmethod
    def create(cls, root: Path) -> "SegmentDirectory":
        """A new, empty directory below `root`, held by this process."""
        root.mkdir(parents=True, exist_ok=True)
        name = f"{os.getpid()}-{uuid4().hex}"
        # It gets its name when it is locked: nobody can take it for a dead process's before.
        unfinished = root / f"{_NEW}{name}"
        unfinished.mkdir()
        lock = os.open(unfinished / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        unfinished.rename(root / name)
        return cls(root / name, lock)

    @classmethod
    def adopt(cls, path: Path) -> "SegmentDirectory | None":
        """The directory of a process that is gone, now held by this one; None if it is held, or gone itself."""
        try:
            lock = os.open(path / _LOCK, os.O_RDWR | os.O_CLOEXEC)
        except (FileNotFoundError, NotADirectoryError):
            return None
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            return None
        if not (path / _LOCK).exists():
            # Another process adopted and removed it between the open and the lock.
            os.close(lock)
            return None
        return cls(path, lock)

    def segments(self) -> list[Path]:
        """The segment files, oldest first."""
        return sorted(self.path.glob(f"*{_SUFFIX}"))

    def segment(self, number: int) -> Path:
        return self.path / f"{number:0{_DIGITS}d}{_SUFFIX}"

    def release(self) -> None:
        """Lets go of the directory; an empty one is removed."""
        if not self.segments():
            (self.path / _LOCK).unlink(missing_ok=True)
            if not any(self.path.iterdir()):
                self.path.rmdir()
        os.close(self._lock)


def other_directories(root: Path, mine: Path) -> list[Path]:
    """Directories below `root` that may belong to dead processes."""
    if not root.is_dir():
        return []
    return sorted(path for path in root.iterdir() if path != mine and path.is_dir() and not path.name.startswith(_NEW))


def set_aside(segment: Path) -> None:
    """Keeps a segment that cannot be read to its end, for a person, out of the shipper's way."""
    segment.rename(segment.with_suffix(_DAMAGED))
    DAMAGED.inc()
