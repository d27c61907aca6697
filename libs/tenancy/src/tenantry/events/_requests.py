"""Answers the requests of the tenant service's sagas: provision a tenant, advance a clock.

A service reads the requests once for each lane that it uses, with a consumer group of each lane, so that a request that
takes seconds holds up only its like. Requests of one key that share a lane are handled in their order; a rule that
chooses the lane of a kind must therefore send the requests of one tenant to one lane.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from enum import Enum
from typing import Any, Final, Literal
from uuid import UUID

import msgspec
import structlog
from aiokafka import ConsumerRecord
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from tenantry import TenantryError, current_traceparent
from tenantry._tracing import is_tracing, span
from tenantry.events._consumer import TransactionalConsumer
from tenantry.events._envelope import InvalidRecord, InvalidRecords
from tenantry.events._outbox import OutboxEvent, append_outbox_many
from tenantry.events._settings import KafkaSettings
from tenantry.events._tracing import origin_of
from tenantry.events._waiting import is_away

log = structlog.get_logger(__name__)

TENANT_REQUESTS: Final = "tenant.requests.v1"
TENANT_ACKS: Final = "tenant.acks.v1"
ACK_TYPE: Final = "tenant.acknowledged.v1"


class Lane(Enum):
    """How the requests of a lane are taken: so many records, and so many of them handled at the same time."""

    QUICK = ("-quick", 500, 50)
    """Milliseconds each: a thousand tenants are a few transactions."""
    WAITING = ("-waiting", 200, 200)
    """Done when something else has arrived; waiting costs nothing."""
    SLOW = ("", 20, 4)
    """Seconds each (a database is made and migrated). What nobody has said anything about is slow."""
    BACKGROUND = ("-background", 20, 4)
    """Nobody waits for it: what a reconciler asks must not hold up the making of places."""

    def __init__(self, suffix: str, max_records: int, at_once: int) -> None:
        self.suffix = suffix
        self.max_records = max_records
        self.at_once = at_once


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """What the tenant service asks of the services named in it. Value of `tenant.requests.v1`."""

    request_id: UUID
    kind: str
    services: tuple[str, ...]
    tenant_id: UUID | None = None
    data: dict[str, Any] = {}


class Ack(msgspec.Struct, frozen=True, kw_only=True):
    """A service's answer. Value of `tenant.acks.v1`, under the key of the request."""

    request_id: UUID
    service: str
    outcome: Literal["done", "failed"]
    error_code: str | None = None
    detail: str | None = None
    retryable: bool = False
    """Whether asking again later may help, without anybody's doing."""
    result: Mapping[str, Any] = {}


class Later(Enum):
    """What a handler returns whose answer is written by somebody else, when the work is done."""

    LATER = "later"


LATER: Final = Later.LATER

Handler = Callable[[Request], Awaitable[Mapping[str, Any] | Later | None]]
LaneRule = Lane | Callable[[Request], Lane]


class NotYet(Exception):
    """A handler's word that it cannot answer now and that the saga may ask again; nothing is wrong."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code


_decode: Final = msgspec.json.Decoder(Request).decode


def ack_event(
    key: str, ack: Ack, tenant_id: UUID | None, *, version: int, traceparent: str | None = None
) -> OutboxEvent:
    """An answer as a row of the outbox; `key` is that of the request, `traceparent` where in a trace it was given.

    Acks of a key are facts, not states of a document: `version` (the request's offset, a time) only orders them.
    """
    return OutboxEvent(
        topic=TENANT_ACKS,
        key=key,
        type=ACK_TYPE,
        data=ack,
        tenant_id=tenant_id,
        version=version,
        headers={} if traceparent is None else {"traceparent": traceparent},
    )


class RequestResponder:
    """Runs a service's handlers for the requests that name it and writes each answer with the consumed offset.

    A handler returns the result of its ack. It may be called again for the same request (after a crash, or when the
    saga retries), so what it makes it must be able to find made; requests of several tenants are handled at the same
    time. A `TenantryError` below 500, and any fault of the handler's own, answers `failed` with its reason, and the
    saga decides; `NotYet` has it ask again; a server that is away is waited for.
    """

    def __init__(
        self,
        service: str,
        kafka: KafkaSettings,
        system_engine: AsyncEngine,
        handlers: Mapping[str, Handler],
        *,
        lanes: Mapping[str, LaneRule] | None = None,
        region: str | None = None,
    ) -> None:
        """`lanes` says for kinds of requests which lane they take; a rule may choose between quick and slow.

        Of a service with a deployment in each region (`TENANTRY_DEPLOYMENT`), the one in `region` leaves requests about
        tenants that are pinned to another region to the one that is there.
        """
        self._service = service
        self._handlers = handlers
        self._lanes = lanes or {}
        self._region = region if kafka.deployment else None
        self.consumers: Mapping[Lane, TransactionalConsumer] = {
            lane: TransactionalConsumer(
                kafka=kafka,
                engine=system_engine,
                group=f"{service}-requests{lane.suffix}",
                topics=[TENANT_REQUESTS],
                handle=self._handler_of(lane),
                max_records=lane.max_records,
                max_wait_ms=0,
            )
            for lane in self._used()
        }

    async def run(self) -> None:
        """Answers until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            for consumer in self.consumers.values():
                tasks.create_task(consumer.run())

    def _used(self) -> Collection[Lane]:
        rules = [self._lanes.get(kind, Lane.SLOW) for kind in self._handlers]
        chosen = {rule for rule in rules if isinstance(rule, Lane)}
        return chosen if len(chosen) == len(set(rules)) else chosen | {Lane.QUICK, Lane.SLOW}

    def _lane_of(self, request: Request) -> Lane:
        rule = self._lanes.get(request.kind, Lane.SLOW)
        return rule if isinstance(rule, Lane) else rule(request)

    def _handler_of(
        self, lane: Lane
    ) -> "Callable[[AsyncConnection, Sequence[ConsumerRecord[bytes, bytes]]], Awaitable[None]]":
        async def handle(connection: AsyncConnection, records: "Sequence[ConsumerRecord[bytes, bytes]]") -> None:
            requests = self._requests(lane, records)
            slots = asyncio.Semaphore(lane.at_once)
            answered = await asyncio.gather(
                *(self._answer_in_order(each, slots) for each in requests.values()), return_exceptions=True
            )
            acks: list[OutboxEvent] = []
            for each in answered:
                if isinstance(each, BaseException):
                    raise each
                acks += each
            await append_outbox_many(connection, acks)

        return handle

    def _requests(
        self, lane: Lane, records: "Sequence[ConsumerRecord[bytes, bytes]]"
    ) -> Mapping[bytes, "Sequence[tuple[ConsumerRecord[bytes, bytes], Request]]"]:
        """The requests of this lane that name this service, by key. Raises `InvalidRecords`."""
        wanted: dict[bytes, list[tuple[ConsumerRecord[bytes, bytes], Request]]] = {}
        invalid: list[InvalidRecord] = []
        for record in records:
            try:
                request = self._request(record)
                if request.kind not in self._handlers or self._service not in request.services:
                    continue
                if self._is_elsewhere(request):
                    continue
                chosen = self._lane_of(request)
            except InvalidRecord as error:
                invalid.append(error)
                continue
            if chosen is lane:
                wanted.setdefault(record.key or b"", []).append((record, request))
        if invalid:
            raise InvalidRecords(invalid)
        return wanted

    def _is_elsewhere(self, request: Request) -> bool:
        return self._region is not None and request.data.get("region") not in {None, self._region}

    async def _answer_in_order(
        self, requests: "Sequence[tuple[ConsumerRecord[bytes, bytes], Request]]", slots: asyncio.Semaphore
    ) -> list[OutboxEvent]:
        acks = []
        async with slots:
            for record, request in requests:
                with span(f"answer {request.kind}", "consumer", parent=origin_of(record)):
                    ack = await self._answer(self._handlers[request.kind], request)
                    traceparent = current_traceparent() if is_tracing() else origin_of(record)
                if ack is not None:
                    key = (record.key or b"").decode()
                    acks.append(ack_event(key, ack, request.tenant_id, version=record.offset, traceparent=traceparent))
        return acks

    def _request(self, record: "ConsumerRecord[bytes, bytes]") -> Request:
        if record.value is None or record.key is None:
            raise InvalidRecord(record, "a request has a key and a value")
        try:
            return _decode(record.value)
        except msgspec.DecodeError as error:
            raise InvalidRecord(record, str(error)) from error

    async def _answer(self, handler: Handler, request: Request) -> Ack | None:
        retryable = False
        try:
            result = await handler(request)
        except NotYet as error:
            code, detail, retryable = error.code, str(error), True
        except TenantryError as error:
            if error.status >= 500:
                raise
            code, detail = error.type, str(error)
        except Exception as error:
            if is_away(error):
                raise
            log.exception("request_failed", kind=request.kind, request_id=str(request.request_id))
            code, detail = "internal-error", type(error).__name__
        else:
            if isinstance(result, Later):
                return None
            return Ack(request_id=request.request_id, service=self._service, outcome="done", result=result or {})
        return Ack(
            request_id=request.request_id,
            service=self._service,
            outcome="failed",
            error_code=code,
            detail=detail,
            retryable=retryable,
        )
