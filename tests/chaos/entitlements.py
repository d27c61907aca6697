"""Quotas under chaos: balances are the oracle's, and each crossing of a threshold is told once, and so is its end."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from aiokafka import ConsumerRecord

from .oracle import Expected

ALERTS = "usage.alerts.v1"
BALANCES = "usage.balances.v1"
METER = "calls"
THRESHOLDS = ("0.1", "0.5", "1.0")
LIMIT = 400
QUOTA: dict[str, Any] = {"limit": str(LIMIT), "period": "month", "hard": False, "alerts": list(THRESHOLDS)}


def usage_of(expected: Expected, tenant: str) -> int:
    """What a tenant has used of the quota in the month that runs."""
    month = datetime.now(UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    return sum(
        figure.count
        for window, figure in expected.windows.items()
        if window[:2] == (tenant, METER) and window.hour >= month
    )


def is_settled(records: Sequence[ConsumerRecord], expected: Expected, tenants: Sequence[str]) -> bool:
    """Whether the balances say what was used."""
    last = {record.key.decode(): json.loads(record.value) for record in records if record.value}
    used = {tenant: last.get(f"{tenant}/{METER}", {}).get("usage", "0") for tenant in tenants}
    return used == {tenant: str(usage_of(expected, tenant)) for tenant in tenants}


def compare_alerts(records: Sequence[ConsumerRecord], expected: Expected, tenants: Sequence[str]) -> int:
    """Each threshold's records are numbered from 1, raise and clear in turn, and end as the usage says; how many."""
    told: defaultdict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
    for alert in map(json.loads, (record.value for record in records)):
        if "threshold" in alert:
            told[alert["tenant_id"], alert["threshold"]].append(alert)
    for tenant in tenants:
        used = usage_of(expected, tenant)
        for threshold in THRESHOLDS:
            alerts = told.pop((tenant, str(Decimal(threshold).normalize())), [])
            assert [each["sequence"] for each in alerts] == list(range(1, len(alerts) + 1)), alerts
            states = [each["state"] for each in alerts]
            assert states == ["raised", "cleared"] * (len(states) // 2) + ["raised"] * (len(states) % 2), alerts
            assert (len(states) % 2 == 1) == (used >= LIMIT * Decimal(threshold)), (used, alerts)
            assert len({each["id"] for each in alerts}) <= 1
    assert not told
    return len(records)


def compare_not_counted(records: Sequence[ConsumerRecord], expected: Expected) -> None:
    """Whatever is not counted was told of its tenant, and nothing twice for a day."""
    told = [each for each in map(json.loads, (record.value for record in records)) if "threshold" not in each]
    keys = [(each["tenant_id"], each["kind"], each["reason"], each["day"]) for each in told]
    assert len(keys) == len(set(keys))
    found = {(tenant, kind) for tenant, kind, _, _ in keys}
    assert {(identity.tenant, "conflict") for identity in expected.conflicts} <= found
    assert {(tenant, "invalid-value") for tenant, _ in expected.invalid} <= found
