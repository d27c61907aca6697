"""The saga worker: loops that claim the steps that are due, woken by NOTIFY and by the clock."""

import asyncio
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager, suppress
from time import monotonic

from prometheus_client import Counter
from sqlalchemy.ext.asyncio import AsyncSession

from tenant_service.domain.saga import StepName
from tenant_service.listening import listen, until_it_works
from tenant_service.runs.due_steps import WAKE_CHANNEL
from tenant_service.runs.engine import Turn, take_turns
from tenant_service.runs.steps import SagaSettings, StepWork
from tenant_service.runs.work import WORK
from tenantry import Clock

# What a lost notification, or a step whose time comes, can cost.
POLL_SECONDS = 1.0
# The least time from the beginning of a turn to that of the next one. A turn costs 12 ms and half a millisecond for
# each run, so steps that come due one by one are better taken together; no service answers a request faster than this.
TURN_SECONDS = 0.05

_TURNS = Counter("tenant_saga_turns_total", "Turns of saga steps by the state they ended in", ["run", "step", "state"])

SessionFactory = Callable[[], AbstractAsyncContextManager[AsyncSession]]


class SagaWorker:
    """Carries runs forward until it is cancelled; any number of replicas may run at once.

    `sessions` opens one transaction that commits when it is left without an error. `work` is the work of each step;
    tests give their own, to die in the middle of one.
    """

    def __init__(
        self,
        sessions: SessionFactory,
        dsn: str,
        settings: SagaSettings,
        clock: Clock,
        *,
        concurrency: int,
        work: Mapping[StepName, StepWork] = WORK,
    ) -> None:
        self._sessions = sessions
        self._dsn = dsn
        self._settings = settings
        self._clock = clock
        self._work = work
        self._wakes = [asyncio.Event() for _ in range(concurrency)]

    async def run(self) -> None:
        """Work until cancelled; an unreachable database is waited for."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(listen(self._dsn, WAKE_CHANNEL, lambda _payload: self._wake_all()))
            for wake in self._wakes:
                tasks.create_task(self._loop(wake))

    def _wake_all(self) -> None:
        for wake in self._wakes:
            wake.set()

    async def _loop(self, wake: asyncio.Event) -> None:
        while True:
            # Cleared before the look, so that a notification that arrives during it is not lost.
            wake.clear()
            began = monotonic()
            if await self._turns():
                await asyncio.sleep(began + TURN_SECONDS - monotonic())
                continue
            # Not wait_for(), which before Python 3.12 loses a cancellation that comes together with a notification.
            with suppress(TimeoutError):
                async with asyncio.timeout(POLL_SECONDS):
                    await wake.wait()

    async def _turns(self) -> list[Turn]:
        turns: list[Turn] = []
        async for attempt in until_it_works("saga turn"):
            with attempt:
                async with self._sessions() as session:
                    turns = await take_turns(session, self._work, self._settings, self._clock.now())
        for turn in turns:
            _TURNS.labels(turn.run, turn.step, turn.state).inc()
        return turns
