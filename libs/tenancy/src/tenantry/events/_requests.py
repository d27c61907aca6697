"""Answers the requests of the tenant service's sagas: provision a tenant, advance a clock."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final, Literal
from uuid import UUID

import msgspec
import structlog
from aiokafka import ConsumerRecord
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from tenantry import TenantryError
from tenantry.events._consumer import TransactionalConsumer
from tenantry.events._envelope import InvalidRecord
from tenantry.events._outbox import append_outbox
from tenantry.events._settings import KafkaSettings
from tenantry.events._waiting import is_away

log = structlog.get_logger(__name__)

TENANT_REQUESTS: Final = "tenant.requests.v1"
TENANT_ACKS: Final = "tenant.acks.v1"
ACK_TYPE: Final = "tenant.acknowledged.v1"

# A request may take seconds (a database is created and migrated), so few are taken at a time.
_MAX_RECORDS: Final = 10


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
    result: Mapping[str, Any] = {}


Handler = Callable[[Request], Awaitable[Mapping[str, Any] | None]]

_decode: Final = msgspec.json.Decoder(Request).decode


class RequestResponder:
    """Runs a service's handlers for the requests that name it and writes each answer with the consumed offset.

    A handler returns the result of its ack. It may be called again for the same request (after a crash, or when the
    saga retries), so what it makes it must be able to find made. A `TenantryError` below 500, and any fault of the
    handler's own, answers `failed` with its reason, and the saga decides; a server that is away is waited for.
    """

    def __init__(
        self, service: str, kafka: KafkaSettings, system_engine: AsyncEngine, handlers: Mapping[str, Handler]
    ) -> None:
        self._service = service
        self._handlers = handlers
        self.consumer = TransactionalConsumer(
            kafka=kafka,
            engine=system_engine,
            group=f"{service}-requests",
            topics=[TENANT_REQUESTS],
            handle=self._handle,
            max_records=_MAX_RECORDS,
            max_wait_ms=0,
        )

    async def run(self) -> None:
        """Answers until cancelled."""
        await self.consumer.run()

    async def _handle(self, connection: AsyncConnection, records: "Sequence[ConsumerRecord[bytes, bytes]]") -> None:
        for record in records:
            request = self._request(record)
            handler = self._handlers.get(request.kind)
            if handler is None or self._service not in request.services:
                continue
            ack = await self._answer(handler, request)
            await append_outbox(
                connection,
                topic=TENANT_ACKS,
                key=(record.key or b"").decode(),
                type=ACK_TYPE,
                data=ack,
                tenant_id=request.tenant_id,
                # Acks of a key are facts, not states of a document: the request's place orders them.
                version=record.offset,
            )

    def _request(self, record: "ConsumerRecord[bytes, bytes]") -> Request:
        if record.value is None or record.key is None:
            raise InvalidRecord(record, "a request has a key and a value")
        try:
            return _decode(record.value)
        except msgspec.DecodeError as error:
            raise InvalidRecord(record, str(error)) from error

    async def _answer(self, handler: Handler, request: Request) -> Ack:
        try:
            result = await handler(request)
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
            return Ack(request_id=request.request_id, service=self._service, outcome="done", result=result or {})
        return Ack(
            request_id=request.request_id, service=self._service, outcome="failed", error_code=code, detail=detail
        )
