"""`usage.rollups.v1` into billing's own copy, exactly once: the offsets are rows of the same transaction."""

from collections.abc import Callable, Sequence
from itertools import groupby
from uuid import UUID

from aiokafka import ConsumerRecord
from sqlalchemy.ext.asyncio import AsyncConnection

from billing_service.usage.records import Cut, Rollup, RollupKey, Withdrawn, decode_record
from billing_service.usage.repository import record_cut, replace_rollups, withdraw_rollups

GROUP = "billing-rollups"
TOPIC = "usage.rollups.v1"


class RollupConsumer:
    """Handles batches of rollup records. `is_purged` tells which tenants' usage must never come back."""

    def __init__(self, is_purged: Callable[[UUID], bool]) -> None:
        self._is_purged = is_purged

    async def handle(self, connection: AsyncConnection, records: Sequence["ConsumerRecord[bytes, bytes]"]) -> None:
        """Apply `records`, grouped by partition and ascending in each; the caller commits. Raises InvalidRecord."""
        for partition, group in groupby(records, key=lambda record: record.partition):
            await self._apply(connection, partition, list(group))

    async def _apply(
        self, connection: AsyncConnection, partition: int, records: list["ConsumerRecord[bytes, bytes]"]
    ) -> None:
        """A cut divides the batch: what comes before it must be stored before the copy starts to keep its past."""
        newest: dict[RollupKey, Rollup] = {}
        withdrawn: set[RollupKey] = set()

        async def store() -> None:
            # In this order: what came back begins anew.
            await withdraw_rollups(connection, partition, sorted(withdrawn))
            await replace_rollups(connection, partition, list(newest.values()))
            withdrawn.clear()
            newest.clear()

        for decoded in map(decode_record, records):
            match decoded:
                case Cut():
                    await store()
                    await record_cut(connection, partition, decoded)
                case Rollup() | Withdrawn() if self._is_purged(decoded.key.tenant_id):
                    pass
                case Withdrawn(key=key):
                    newest.pop(key, None)
                    withdrawn.add(key)
                case Rollup():
                    known = newest.get(decoded.key)
                    if known is None or known.version < decoded.version:
                        newest[decoded.key] = decoded
        await store()
