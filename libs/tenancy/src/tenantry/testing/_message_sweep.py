"""A consumer, given messages whose tenant is swapped, missing or unknown, twice, and in another order."""

import itertools
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Self

import msgspec

from tenantry import Tenant
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

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine

    from tenantry.events import Event, Handle

Effect = Callable[[Tenant], Awaitable[object]]

_WRONG: Final = ("", "not-an-id")


@dataclass(frozen=True, slots=True)
class Message:
    """A record of a topic; what it is decoded to is the consumer's affair."""

    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...] = ()

    @classmethod
    def of(cls, event: "Event") -> Self:
        """An event as it travels. Needs the extra ``tenantry[kafka]``."""
        from tenantry.events import encode  # noqa: PLC0415 - the extra

        key, value, headers = encode(event)
        return cls(key, value, tuple(headers))


def delivery_to(handle: "Handle", engine: "AsyncEngine", topic: str) -> Callable[[Message], Awaitable[None]]:
    """Gives each message to the handler of a `TransactionalConsumer`, in a transaction; needs ``tenantry[kafka]``."""
    from aiokafka import ConsumerRecord  # noqa: PLC0415 - the extra

    offsets = itertools.count()

    async def deliver(message: Message) -> None:
        sizes = (len(message.key or b""), len(message.value or b""))
        record = ConsumerRecord(
            topic, 0, next(offsets), 0, 0, message.key, message.value, None, *sizes, message.headers
        )
        async with engine.begin() as connection:
            await handle(connection, [record])

    return deliver


async def sweep_consumer(
    deliver: Callable[[Message], Awaitable[None]],
    message_of: Callable[[Tenant, int], Message],
    effect_of: Effect,
    a: Tenant,
    b: Tenant,
    *,
    name: str = "consumer",
) -> SweepReport:
    """Delivers messages of A and B as they should not be, and looks at what became of either tenant.

    ``deliver`` handles one message and commits, or raises what refuses it. ``message_of`` makes the valid message of a
    tenant with a number: each has another identity and a higher version than those with lower numbers. ``effect_of``
    returns what the messages have made of a tenant, from the database; A and B begin alike. A message whose key,
    headers and value do not name one tenant must have no effect, a repeated one none more, and two in the wrong order
    the same as in the right one. Raises SweepFailed.
    """
    sweep = _MessageSweep(name, deliver, message_of, effect_of, a, b)
    await sweep.run()
    return sweep.report.concluded()


class _MessageSweep:
    def __init__(
        self,
        name: str,
        deliver: Callable[[Message], Awaitable[None]],
        message_of: Callable[[Tenant, int], Message],
        effect_of: Effect,
        a: Tenant,
        b: Tenant,
    ) -> None:
        self.report = SweepReport("consumer")
        self._name = name
        self._deliver = deliver
        self._message_of = message_of
        self._effect_of = effect_of
        self._a, self._b, self._nobody = a, b, nobody_like(a)
        self._numbers = itertools.count(1)

    async def run(self) -> None:
        before = await self._effect_of(self._a)
        if neutral(before, self._a) != neutral(await self._effect_of(self._b), self._b):
            self.report.blindness(self._name, "effect", "A and B do not begin alike")
        first, second = (next(self._numbers), next(self._numbers))
        await self._send("valid", self._message_of(self._a, first), may_change=[self._a])
        if await self._effect_of(self._a) == before:
            self.report.blindness(self._name, "effect", "a valid message of A has none")
        await self._send("valid", self._message_of(self._a, second), may_change=[self._a])
        await self._send("out of order", self._message_of(self._b, second), may_change=[self._b])
        await self._send("out of order", self._message_of(self._b, first), may_change=[self._b])
        in_order, out_of_order = [neutral(await self._effect_of(each), each) for each in (self._a, self._b)]
        if in_order != out_of_order:
            self.report.leak(
                self._name, "out of order", f"has another effect: {out_of_order[:150]}, not {in_order[:150]}"
            )
        for number in (second, first):
            await self._send("repeated", self._message_of(self._a, number), may_change=[])
        for position, mutated, may_change in self._mutations():
            await self._send(position, mutated, may_change)
        still = await self._effect_of(self._a)
        await self._send("valid", self._message_of(self._a, next(self._numbers)), may_change=[self._a])
        if await self._effect_of(self._a) == still:
            self.report.blindness(self._name, "effect", "a valid message of A has none after those that were refused")

    def _mutations(self) -> Iterator[tuple[str, Message, list[Tenant]]]:
        a, b, nobody = self._a, self._b, self._nobody
        places = list(places_of(self._next(a), names_of(a)))
        if len(places) < 2:
            self.report.blindness(
                self._name,
                "message",
                f"names its tenant in {[dotted(each) for each in places]} alone: nothing can disagree",
            )
        for swapped in places if len(places) > 1 else []:
            for other, label in ((b, "another tenant"), (nobody, "nobody")):
                document = self._next(a)
                yield f"{dotted(swapped)} of {label}", self._swapped(document, [swapped], other), []
                if len(places) > 2:
                    rest = [each for each in places if each != swapped]
                    yield f"all but {dotted(swapped)} of {label}", self._swapped(document, rest, other), []
        for place in places:
            yield f"no {dotted(place)}", _message(with_value(self._next(a), place, REMOVED)), [a]
            for wrong in _WRONG:
                yield f"{dotted(place)} {wrong!r}", _message(with_value(self._next(a), place, wrong)), []
        document = self._next(a)
        for place in reversed(places):
            document = with_value(document, place, REMOVED)
        yield "no tenant", _message(document), []
        yield "unknown tenant", self._swapped(self._next(a), places, nobody), []

    def _next(self, tenant: Tenant) -> dict[str, Any]:
        return _document(self._message_of(tenant, next(self._numbers)))

    def _swapped(self, document: Any, places: list[Path], to: Tenant) -> Message:
        for place in places:
            document = with_value(document, place, renamed(value_at(document, place), self._a, to))
        return _message(document)

    async def _send(self, position: str, message: Message, may_change: list[Tenant]) -> None:
        watched = {"A": self._a, "B": self._b, "nobody": self._nobody}
        before = {name: await self._effect_of(tenant) for name, tenant in watched.items()}
        refused: Exception | None = None
        try:
            await self._deliver(message)
        except Exception as error:  # noqa: BLE001 - whatever the consumer refuses it with
            refused = error
        self.report.tried[position] += 1
        if refused is not None and may_change and position != "out of order" and not position.startswith("no "):
            self.report.blindness(self._name, position, f"is refused: {refused!r}"[:300])
        for name, tenant in watched.items():
            if tenant not in may_change and (after := await self._effect_of(tenant)) != before[name]:
                self.report.leak(self._name, position, f"has an effect on {name}: {after!r}"[:300])


def _document(message: Message) -> dict[str, Any]:
    """A message as a document, in which places can be found."""
    try:
        value = None if message.value is None else msgspec.json.decode(message.value)
    except msgspec.DecodeError:
        value = None if message.value is None else message.value.decode("latin-1")
    return {
        "key": None if message.key is None else message.key.decode("latin-1"),
        "headers": {name: content.decode("latin-1") for name, content in message.headers},
        "value": value,
    }


def _message(document: Mapping[str, Any]) -> Message:
    key, value = document.get("key"), document.get("value")
    return Message(
        None if key is None else str(key).encode("latin-1"),
        None if value is None else msgspec.json.encode(value),
        tuple((name, str(content).encode("latin-1")) for name, content in document["headers"].items()),
    )
