"""`tenant.acks.v1` once more, for the reports: in a group of its own, so that no provisioning waits for them."""

from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from uuid import UUID

from aiokafka import ConsumerRecord
from sqlalchemy.ext.asyncio import AsyncConnection

from tenant_service.reconciling.repository import store_reports
from tenant_service.runs.consumers import read_ack
from tenant_service.runs.requests import Ack
from tenantry import Clock
from tenantry.events import InvalidRecord

REPORTS_GROUP = "tenant-reports"


def reports_handler(clock: Clock) -> Callable[[AsyncConnection, Sequence[ConsumerRecord]], Awaitable[None]]:
    """A handler that stores a batch of reports in the consumer's transaction; repeating a record changes nothing."""

    async def handle(connection: AsyncConnection, records: Sequence[ConsumerRecord]) -> None:
        acks: dict[tuple[UUID, str], Ack] = {}
        for record in records:
            # What cannot be read is a dead letter of the sagas' consumer already.
            with suppress(InvalidRecord):
                ack = read_ack(record)
                acks.setdefault((ack.request_id, ack.service), ack)
        await store_reports(connection, list(acks.values()), clock.now())

    return handle
