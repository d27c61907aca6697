"""Quotas under chaos: balances are the oracle's, and each crossing of a threshold is told once, and so is its end."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Collection, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from aiokafka import ConsumerRecord

from .oracle import Expected
from .workload import Identity

ALERTS = "usage.alerts.v1"
BALANCES = "usage.balances.v1"
METER = "calls"
THRESHOLDS = ("0.1", "0.5", "1.0")
LIMIT = 100

Told = set[tuple[str, str, str]]
"""Tenant, kind and reason of what is not counted."""

_HOUR = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
# Some time ago, so that what is sent lies in the period that runs, whichever day of the month it is.
_ANCHOR = _HOUR - timedelta(days=15)
QUOTA: dict[str, Any] = {
    "limit": str(LIMIT),
    "period": "month",
    "anchor": _ANCHOR.isoformat(),
    "hard": False,
    "alerts": list(THRESHOLDS),
}


def usage_of(expected: Expected, tenant: str) -> int:
    """What a tenant has used of the quota in the period that runs."""
    return sum(
        figure.count
        for window, figure in expected.windows.items()
        if window[:2] == (tenant, METER) and window.hour >= _ANCHOR
    )


def is_settled(records: Sequence[ConsumerRecord], expected: Expected, tenants: Sequence[str]) -> bool:
    """Whether the balances say what was used."""
    last = {record.key.decode(): json.loads(record.value) for record in records if record.value}
    used = {tenant: last.get(f"{tenant}/{METER}", {}).get("usage", "0") for tenant in tenants}
    return used == {tenant: str(usage_of(expected, tenant)) for tenant in tenants}


def compare_alerts(records: Sequence[ConsumerRecord], expected: Expected, tenants: Sequence[str]) -> None:
    """Each threshold's records are numbered from 1, raise and clear in turn, and end as the usage says."""
    told: defaultdict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
    for alert in map(json.loads, (record.value for record in records)):
        if "threshold" in alert:
            told[alert["tenant_id"], alert["threshold"]].append(alert)
    raised = 0
    for tenant in tenants:
        used = usage_of(expected, tenant)
        for threshold in THRESHOLDS:
            alerts = told.pop((tenant, str(Decimal(threshold).normalize())), [])
            assert [each["sequence"] for each in alerts] == list(range(1, len(alerts) + 1)), alerts
            states = [each["state"] for each in alerts]
            assert states == ["raised", "cleared"] * (len(states) // 2) + ["raised"] * (len(states) % 2), alerts
            assert (len(states) % 2 == 1) == (used >= LIMIT * Decimal(threshold)), (used, alerts)
            assert len({each["id"] for each in alerts}) <= 1
            raised += len(states) % 2
    assert not told
    assert raised, "nobody has reached a threshold, so none was tried"


def not_counted(expected: Expected, refused: Collection[Identity]) -> Told:
    """What must be told: of types whose events were all corrected it may be, or not."""
    return {
        *((identity.tenant, "conflict", "") for identity in expected.conflicts),
        *((identity.tenant, "late", "") for identity in refused),
        *((tenant, "invalid-value", slug) for tenant, slug in expected.invalid),
        *((tenant, "unmatched", kind) for tenant, kind in expected.unmatched),
    }


def compare_not_counted(records: Sequence[ConsumerRecord], wanted: Told, expected: Expected) -> None:
    """Whatever is not counted was told of its tenant, nothing twice for a day, and nothing else."""
    told = [each for each in map(json.loads, (record.value for record in records)) if "threshold" not in each]
    times = Counter((each["tenant_id"], each["kind"], each["reason"], each["day"]) for each in told)
    assert set(times.values()) <= {1}
    found = {(tenant, kind, reason) for tenant, kind, reason, _ in times}
    assert found - {(tenant, "unmatched", kind) for tenant, kind in expected.types} == {
        each for each in wanted if each[1] != "unmatched"
    }
    assert wanted <= found
    assert {kind for _, kind, _ in found} == {"conflict", "late", "invalid-value", "unmatched"}
