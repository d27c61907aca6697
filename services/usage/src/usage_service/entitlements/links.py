"""The way back from an amount that was used to the events behind it."""

from __future__ import annotations

from urllib.parse import urlencode
from uuid import UUID

from usage_service.domain.entitlement_periods import UsagePeriod
from usage_service.domain.instants import rfc3339


def events_link(tenant_id: UUID, meter: str, period: UsagePeriod) -> str | None:
    """Where the events are listed that a meter counts for a tenant in a period; None where nothing meters it."""
    if not meter:
        return None
    named = {"tenant_id": tenant_id, "meter": meter, "from": rfc3339(period.start), "to": rfc3339(period.end)}
    return f"/v1/events?{urlencode(named, safe=':')}"
