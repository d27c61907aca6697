"""Jobs whose envelope is swapped, empty or of nobody, and arguments that name another tenant than the envelope."""

import asyncio
import itertools
from collections.abc import Mapping
from typing import Any, Final, Protocol

from tenantry import Tenant, tenant_scope
from tenantry.testing._documents import (
    REMOVED,
    Path,
    dotted,
    names_of,
    neutral,
    nobody_like,
    places_of,
    renamed,
    value_at,
    with_value,
)
from tenantry.testing._report import SweepReport

Envelope = Mapping[str, Any]
"""A job as it lies in the queue, as JSON."""

_WRONG: Final[tuple[object, ...]] = (REMOVED, None, "", " ", "not-an-id", [])
_AT_ONCE: Final = 10


class JobQueue(Protocol):
    """What a sweep needs of a queue and of one kind of job in it."""

    async def publish(self, number: int) -> Envelope:
        """Queues the job for the current tenant and returns what lies in the queue, without running it.

        Each ``number`` is another job. Raises what refuses it.
        """
        ...

    async def run(self, envelope: Envelope) -> None:
        """Runs the job as a worker would that takes this from the queue. Raises what refuses it, or why it failed."""
        ...

    async def effect_of(self, tenant: Tenant) -> object:
        """What jobs have made of a tenant, from the database; A and B begin alike."""
        ...


async def sweep_jobs(queue: JobQueue, a: Tenant, b: Tenant, *, tenant_at: Path, name: str = "job") -> SweepReport:
    """Runs jobs of A and B as they should not be, and looks at what became of either tenant.

    ``tenant_at`` is the path to the tenant in an envelope. Whatever else an envelope says, only the tenant that stands
    there may be changed; nobody may be where none stands there, or one that does not exist; and a job that is published
    without a tenant must be refused then, or when it is run. Raises SweepFailed.
    """
    sweep = _JobSweep(name, queue, a, b, tenant_at)
    await sweep.run()
    return sweep.report.concluded()


class _JobSweep:
    def __init__(self, name: str, queue: JobQueue, a: Tenant, b: Tenant, tenant_at: Path) -> None:
        self.report = SweepReport("job")
        self._name = name
        self._queue = queue
        self._a, self._b, self._nobody = a, b, nobody_like(a)
        self._tenant_at = tenant_at
        self._numbers = itertools.count(1)

    async def run(self) -> None:
        a, b = self._a, self._b
        await self._at_once()
        await self._without_tenant()
        for wrong in _WRONG:
            # Between two jobs of A, whose tenant a worker may still have in hand.
            label = "no tenant" if wrong is REMOVED else f"tenant {wrong!r}"
            await self._try(label, with_value(await self._published(a), self._tenant_at, wrong), [])
            await self._try("valid", await self._published(a), [a])
        for place in await self._places():
            for other, label in ((b, "another tenant"), (self._nobody, "nobody")):
                envelope = await self._published(a)
                swapped = with_value(envelope, place, renamed(value_at(envelope, place), a, other))
                owner = other if place == self._tenant_at else a
                await self._try(f"{dotted(place)} of {label}", swapped, [owner] if owner != self._nobody else [])

    async def _places(self) -> list[Path]:
        places = list(places_of(await self._published(self._a), names_of(self._a)))
        if self._tenant_at not in places:
            self.report.blindness(self._name, dotted(self._tenant_at), "the envelope does not name its tenant there")
        return places

    async def _without_tenant(self) -> None:
        try:
            envelope = await self._queue.publish(next(self._numbers))
        except Exception:  # noqa: BLE001 - whatever the queue refuses it with
            self.report.tried["published without a tenant"] += 1
            return
        await self._try("published without a tenant", envelope, [])

    async def _at_once(self) -> None:
        """The same jobs of both tenants at the same time, after which both must look alike."""
        envelopes = []
        for number in [next(self._numbers) for _ in range(_AT_ONCE)]:
            for tenant in (self._a, self._b):
                with tenant_scope(tenant):
                    envelopes.append(await self._queue.publish(number))
        begun = await self._queue.effect_of(self._a)
        ended = await asyncio.gather(*(self._queue.run(each) for each in envelopes), return_exceptions=True)
        self.report.tried["at the same time"] += len(envelopes)
        if failed := [each for each in ended if isinstance(each, BaseException)]:
            self.report.blindness(self._name, "at the same time", f"{len(failed)} failed: {failed[0]!r}"[:300])
        of_a, of_b = [await self._queue.effect_of(each) for each in (self._a, self._b)]
        if of_a == begun:
            self.report.blindness(self._name, "effect", "valid jobs of A have none")
        if neutral(of_a, self._a) != neutral(of_b, self._b):
            self.report.leak(
                self._name, "at the same time", f"the same jobs have made {of_a!r} of A and {of_b!r} of B"[:300]
            )

    async def _published(self, tenant: Tenant) -> Envelope:
        with tenant_scope(tenant):
            return await self._queue.publish(next(self._numbers))

    async def _try(self, position: str, envelope: Envelope, may_change: list[Tenant]) -> None:
        watched = {"A": self._a, "B": self._b, "nobody": self._nobody}
        before = {name: await self._queue.effect_of(tenant) for name, tenant in watched.items()}
        refused: Exception | None = None
        try:
            await self._queue.run(envelope)
        except Exception as error:  # noqa: BLE001 - whatever a worker refuses it with
            refused = error
        self.report.tried[position] += 1
        if refused is not None and position == "valid":
            self.report.blindness(self._name, position, f"is refused: {refused!r}"[:300])
        for name, tenant in watched.items():
            if tenant not in may_change and (after := await self._queue.effect_of(tenant)) != before[name]:
                self.report.leak(self._name, position, f"has an effect on {name}: {after!r}"[:300])
