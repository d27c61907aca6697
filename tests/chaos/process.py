"""Roles as processes under supervision, and who is to blame when one ends."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from processes import SERVE

from .network import Wire

_REST_SECONDS = 0.5
_STARTING_SECONDS = 20.0
_AFTERMATH_SECONDS = 5.0
_ORDERLY_SECONDS = 15.0
_LIFE_SECONDS = 20.0
_LOG_BYTES = 3_000


class Outages:
    """When something was away that processes need."""

    def __init__(self) -> None:
        self._spans: list[list[float]] = []

    @contextmanager
    def one(self) -> Iterator[None]:
        now = asyncio.get_running_loop().time
        span = [now(), float("inf")]
        self._spans.append(span)
        try:
            yield
        finally:
            span[1] = now() + _AFTERMATH_SECONDS

    def touch(self, since: float, until: float) -> bool:
        """Whether one lies in a span of the event loop's time."""
        return any(begun <= until and ended >= since for begun, ended in self._spans)


class Process:
    """A role that starts again, whatever ends it, until it is told to stay away. What is done to it says if it hit.

    One that starts while its servers are away may give up; whoever supervises it in production starts it again, too.
    Any other end that nobody has asked for is in `crashes`.
    """

    def __init__(self, role: str, environment: dict[str, str], log: Path, *, database: Wire, outages: Outages) -> None:
        """`database` is the way of this process to PostgreSQL."""
        self.role = role
        self.database = database
        self.crashes: list[str] = []
        self._environment = environment
        self._log = log
        self._outages = outages
        self._rest = _REST_SECONDS
        self._over = False
        self._asked = False
        self._process: asyncio.subprocess.Process | None = None
        self._alive = asyncio.Event()
        self._supervision = asyncio.create_task(self._supervise())

    async def kill(self, *, away: float) -> bool:
        if not await self._lives():
            return False
        self._rest = away
        self._end_with(signal.SIGKILL)
        await asyncio.sleep(away)
        return True

    async def pause(self, seconds: float, *, cut_off: bool = False) -> bool:
        """`cut_off`: its connections to PostgreSQL end meanwhile, and with them its locks."""
        if not await self._lives():
            return False
        stopped = self._process
        assert stopped is not None
        stopped.send_signal(signal.SIGSTOP)
        if cut_off:
            await self.database.cut()
            await self.database.join()
        await asyncio.sleep(seconds)
        if stopped.returncode is None:
            stopped.send_signal(signal.SIGCONT)
        return True

    async def refuse_database(self, seconds: float) -> bool:
        if not await self._lives():
            return False
        with self._outages.one():
            await self.database.cut()
            await asyncio.sleep(seconds)
            await self.database.join()
        return True

    async def restart(self) -> bool:
        """As a deployment does it: it may finish what it is at."""
        return await self._lives() and await self._ask_to_end()

    async def end(self) -> bool:
        """As `restart`, and it stays away."""
        hit = await self._lives()
        self._over = True
        if hit:
            await self._ask_to_end()
        await self._supervision
        return hit

    async def destroy(self) -> None:
        """At once, for good."""
        self._over = True
        while not self._supervision.done():  # one may just be starting
            self._end_with(signal.SIGKILL)
            await asyncio.wait([self._supervision], timeout=0.5)
        await self.database.cut()

    async def _lives(self) -> bool:
        """Between two lives there is nothing to hit: waits for the next one, if there is to be one."""
        if self._over:
            return False
        try:
            await asyncio.wait_for(self._alive.wait(), _LIFE_SECONDS)
        except TimeoutError:
            return False
        return not self._over

    async def _ask_to_end(self) -> bool:
        ending = self._process
        assert ending is not None
        self._end_with(signal.SIGTERM)
        try:
            await asyncio.wait_for(ending.wait(), _ORDERLY_SECONDS)
        except TimeoutError:
            self._end_with(signal.SIGKILL)
        return True

    async def _supervise(self) -> None:
        now = asyncio.get_running_loop().time
        while not self._over:
            with self._log.open("ab") as output:
                self._process = await asyncio.create_subprocess_exec(
                    *SERVE, self.role, env=self._environment, stdout=output, stderr=output
                )
            born, self._asked = now(), False
            self._alive.set()
            status = await self._process.wait()
            self._alive.clear()
            self._process = None
            if not self._asked and not self._outages.touch(born, min(now(), born + _STARTING_SECONDS)):
                lived = now() - born
                self.crashes.append(f"{self.role} ended with {status} after {lived:.1f} s:\n{self._last_words()}")
            rest, self._rest = self._rest, _REST_SECONDS
            if not self._over:
                await asyncio.sleep(rest)

    def _end_with(self, number: signal.Signals) -> None:
        self._asked = True
        if self._process is not None and self._process.returncode is None:
            self._process.send_signal(number)

    def _last_words(self) -> str:
        return self._log.read_bytes()[-_LOG_BYTES:].decode(errors="replace")
