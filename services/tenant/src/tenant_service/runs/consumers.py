"""`tenant.acks.v1`: what services answer to the requests of sagas."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any
from uuid import UUID

import msgspec
from aiokafka import ConsumerRecord
from sqlalchemy.ext.asyncio import AsyncConnection

from tenant_service.domain.saga import AckOutcome
from tenant_service.runs.requests import Ack, store_acks
from tenantry import Clock
from tenantry.events import InvalidRecord, decode

DETAIL_MAX_LENGTH = 2000


class AckMessage(msgspec.Struct, kw_only=True):
    """The value of a record; fields that are not known are ignored."""

    request_id: UUID
    service: str
    outcome: AckOutcome
    error_code: str | None = None
    detail: str | None = None
    retryable: bool = False
    result: dict[str, Any] | None = None


def acks_handler(clock: Clock) -> Callable[[AsyncConnection, Sequence[ConsumerRecord]], Awaitable[None]]:
    """A handler that stores a batch of answers in the consumer's transaction; repeating a record changes nothing."""

    async def handle(connection: AsyncConnection, records: Sequence[ConsumerRecord]) -> None:
        # The first answer to a request is the one that counts, inside a batch as across batches.
        acks: dict[tuple[UUID, str], Ack] = {}
        for record in records:
            ack = read_ack(record)
            acks.setdefault((ack.request_id, ack.service), ack)
        await store_acks(connection, list(acks.values()), clock.now())

    return handle


def read_ack(record: ConsumerRecord) -> Ack:
    """The answer in a record. Raises `InvalidRecord`."""
    event = decode(record)
    try:
        message = msgspec.convert(event.data, AckMessage)
    except msgspec.ValidationError as error:
        raise InvalidRecord(record, str(error)) from error
    return Ack(
        request_id=message.request_id,
        service=message.service,
        outcome=message.outcome,
        error_code=message.error_code,
        detail=None if message.detail is None else message.detail[:DETAIL_MAX_LENGTH],
        result=message.result,
        retryable=message.retryable,
    )
