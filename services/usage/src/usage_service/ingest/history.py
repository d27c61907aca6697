"""History that is brought in reaches no bill: the seam is the tenant's `bill_from`, as billing publishes it."""

from __future__ import annotations

import asyncio
from contextvars import Context
from datetime import datetime
from typing import TYPE_CHECKING, Final
from uuid import UUID

import msgspec

from tenantry import Unavailable
from tenantry.events import InvalidRecord, KafkaSettings, StateReader, version_of
from usage_service.domain.errors import InvalidEvent
from usage_service.domain.event_checks import Accepted
from usage_service.domain.instants import rfc3339
from usage_service.domain.intake import Intake
from usage_service.metering.rows import TENANT_LENGTH

if TYPE_CHECKING:
    from aiokafka import ConsumerRecord

BILLING_STATE: Final = "billing.state.v1"

_PATIENCE_SECONDS: Final = 5.0


class _State(msgspec.Struct, frozen=True):
    bill_from: datetime | None = None


_decode = msgspec.json.Decoder(_State).decode


class History:
    """Tells history from usage that is billed. Not thread-safe: one event loop feeds and asks it.

    Billing's topic is followed from the first question on: most processes are never asked.
    """

    def __init__(self, kafka: KafkaSettings) -> None:
        self._reader = StateReader(kafka, [BILLING_STATE], self._apply)
        self._reading: asyncio.Task[None] | None = None
        self._versions: dict[bytes, int] = {}
        self._bill_from: dict[bytes, datetime] = {}

    async def stop(self) -> None:
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.wait([self._reading])
        await self._reader.stop()

    async def refuse_billed(self, intake: Intake) -> Intake:
        """Without the events that are not before their tenant's `bill_from`. All of a tenant that has none pass.

        Raises Unavailable where it is not known within a few seconds what billing has published.
        """
        if self._reading is None:
            # In a context of its own: it outlives the request that asks first.
            self._reading = asyncio.create_task(self._reader.start(), context=Context())
        if not self._reader.caught_up:
            await asyncio.wait([self._reading], timeout=_PATIENCE_SECONDS)
        if not self._reader.caught_up:
            raise Unavailable("It is not known yet from when tenants are billed.")
        return intake.without(self._refusal)

    def _refusal(self, event: Accepted) -> InvalidEvent | None:
        bill_from = self._bill_from.get(event.key[:TENANT_LENGTH])
        if bill_from is None or event.time < bill_from:
            return None
        reason = f"is not before {rfc3339(bill_from)}, from when its tenant is billed"
        return InvalidEvent("time", reason, kind="billed")

    def _apply(self, record: ConsumerRecord[bytes, bytes]) -> None:
        version = version_of(record)
        if record.key is None or version is None:
            raise InvalidRecord(record, "no key, or no version")
        if version <= self._versions.get(record.key, -1):
            return
        try:
            tenant = str(UUID(record.key.decode())).encode()
            bill_from = None if record.value is None else _decode(record.value).bill_from
        except (msgspec.MsgspecError, ValueError) as error:
            raise InvalidRecord(record, str(error)) from error
        self._versions[record.key] = version
        if bill_from is None:
            self._bill_from.pop(tenant, None)
        else:
            self._bill_from[tenant] = bill_from
