"""Peak memory of a tree of processes, shared pages counted once (the sum of PSS)."""

from __future__ import annotations

import threading
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil

_INTERVAL_SECONDS = 1.0


class PeakMemory:
    """Samples this process and all below it from enter to exit."""

    def __init__(self) -> None:
        self.peak_bytes = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="memory", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        this = psutil.Process()
        while not self._stop.wait(_INTERVAL_SECONDS):
            self.peak_bytes = max(
                self.peak_bytes, sum(pss(process.pid) for process in [this, *this.children(recursive=True)])
            )


def pss(pid: int) -> int:
    """Proportional set size in bytes; 0 for a process that is gone or not ours to ask."""
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    except OSError:
        return 0
    return 0
