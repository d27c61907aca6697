"""One limit for many short waits at a time, of which nearly none reaches it."""

import asyncio
from itertools import takewhile
from types import TracebackType
from typing import Self


class SharedTimeout:
    """As `asyncio.timeout(seconds)` for every wait, with one timer for all: `with timeout(): await …`.

    A timer for each costs 6 µs, which in a request of 150 µs that has two of them is much. Waits of one length end in
    the order in which they began, so the timer looks at the oldest. Belongs to one event loop.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._waits: dict[_Wait, None] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._is_armed = False

    def __call__(self) -> "_Wait":
        """A context manager for one wait of the current task, which raises `TimeoutError` when it was too long."""
        return _Wait(self)

    def begin(self, wait: "_Wait") -> float:
        """Takes the wait in; returns when it is over, by the loop's time."""
        loop = self._loop
        if loop is None:
            loop = self._loop = asyncio.get_running_loop()
        due = loop.time() + self.seconds
        self._waits[wait] = None
        if not self._is_armed:
            self._is_armed = True
            loop.call_at(due, self._look, loop)
        return due

    def end(self, wait: "_Wait") -> None:
        """The wait is over, whether or not it was too long."""
        self._waits.pop(wait, None)

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        now = loop.time()
        for wait in list(takewhile(lambda wait: wait.due <= now, self._waits)):
            del self._waits[wait]
            wait.expire()
        oldest = next(iter(self._waits), None)
        self._is_armed = oldest is not None
        if oldest is not None:
            loop.call_at(oldest.due, self._look, loop)


class _Wait:
    __slots__ = ("_cancelling", "_is_expired", "_task", "_timeout", "due")

    def __init__(self, timeout: SharedTimeout) -> None:
        self._timeout = timeout
        self._task: asyncio.Task[object] | None = None
        self._cancelling = 0
        self._is_expired = False
        self.due = 0.0

    def expire(self) -> None:
        self._is_expired = True
        assert self._task is not None
        self._task.cancel()

    def __enter__(self) -> Self:
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("only a task can wait")
        self._task, self._cancelling = task, task.cancelling()
        self.due = self._timeout.begin(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._timeout.end(self)
        # Cancelled by somebody else too, it is cancelled: as asyncio's own decides.
        if (
            self._is_expired
            and self._task is not None
            and self._task.uncancel() <= self._cancelling
            and kind is not None
            and issubclass(kind, asyncio.CancelledError)
        ):
            raise TimeoutError from error
