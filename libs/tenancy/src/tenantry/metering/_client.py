"""What an application calls to meter: builds the finished event and spools it."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from tenantry import Clock, SystemClock, Tenant, uuid7
from tenantry.events import UsageEvent, encode_usage_event, partition_key
from tenantry.metering._spool import Spool


class MeteringClient:
    """Meters on behalf of one source, such as a service's name."""

    def __init__(self, spool: Spool, source: str, clock: Clock | None = None) -> None:
        self._spool = spool
        self._source = source
        self._clock = clock or SystemClock()

    def record(
        self,
        tenant: Tenant,
        type: str,  # noqa: A002 - the CloudEvents attribute
        data: Mapping[str, Any],
        *,
        time: datetime | None = None,
    ) -> bool:
        """Spools one event of the tenant, stamped with the tenant's time; True unless a full spool dropped it.

        `time` is for a gauge whose changes were ordered elsewhere, such as under the lock of the row that holds it.
        One write to a file, no waiting: it may be called in a request. Its id is made here, so however often it is
        shipped it counts once. Raises `SpoolFull` (503) where the spool is set to refuse.
        """
        event = UsageEvent(
            id=str(uuid7()),
            source=self._source,
            type=type,
            subject=str(tenant.id),
            time=time or tenant.now(self._clock),
            data=data,
        )
        key = partition_key(tenant.id, tenant.routing.buckets, event.source, event.id)
        return self._spool.append(key, encode_usage_event(event))
