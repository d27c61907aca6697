"""What an application calls to meter: builds the finished event and spools it."""

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Any

from tenantry import Clock, SystemClock, Tenant, Tier, uuid7
from tenantry.events import UsageEvent, encode_usage_event, partition_key
from tenantry.metering._checks import check_text, check_time, check_type, countable
from tenantry.metering._spool import Spool


class MeteringClient:
    """Meters on behalf of one source, such as a service's name."""

    def __init__(
        self,
        spool: Spool,
        source: str,
        clock: Clock | None = None,
        *,
        tier: Callable[[str], Tier | None] = lambda _: None,
    ) -> None:
        """`tier` finds a tier by name: it says how old events may be."""
        self._spool = spool
        self._source = source
        self._clock = clock or SystemClock()
        self._tier = tier

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
        shipped it counts once. Raises `SpoolFull` (503) where the spool is set to refuse, and ValueError for what
        would not be counted: a time that is too old or in the future, a number that is not exact enough, NUL in a text.
        A float is written with 18 digits after the point at most.
        """
        check_type(type)
        now = tenant.now(self._clock)
        if time is not None:
            # A test clock jumps: what was ordered before it did may seem to lie anywhere.
            check_time(time, now=None if tenant.clock else now, max_age=self._max_age(tenant))
        event = UsageEvent(
            id=str(uuid7()),
            source=self._source,
            type=type,
            subject=str(tenant.id),
            time=time or now,
            data=countable(data),
        )
        value = encode_usage_event(event)
        check_text(value)
        return self._spool.append(partition_key(tenant.id, tenant.routing.buckets, event.source, event.id), value)

    def _max_age(self, tenant: Tenant) -> timedelta | None:
        tier = self._tier(tenant.tier)
        seconds = None if tier is None else tier.max_event_age_seconds
        return None if seconds is None else timedelta(seconds=seconds)
