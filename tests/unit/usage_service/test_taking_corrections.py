"""What a request for corrections becomes."""

from __future__ import annotations

import gc
import json
import sys
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from tenantry import LocalDirectory, ManualClock, Operation, TenantStatus
from usage_service.corrections.service import Corrections, CorrectionsRefused
from usage_service.ingest.routes import RouteTable

NOW = datetime(2026, 11, 21, 10, tzinfo=UTC)
THEN = "2026-11-20T09:00:00Z"


class Nowhere:
    async def send(self, _events) -> None:
        raise AssertionError("nothing is sent")


def corrections_for(tenant) -> Corrections:
    directory = LocalDirectory(ready=True)
    directory.upsert(tenant)
    table = RouteTable(directory, ManualClock(NOW), Operation.SERVICE_INGEST)
    table.at()
    return Corrections(table, Nowhere(), None)


def asked(tenant, **replacement: Any) -> bytes:
    event = {"specversion": "1.0", "id": "2", "source": "app", "type": "t", "data": {"bytes": 1}, **replacement}
    cancels = {"subject": str(tenant.id), "source": "app", "id": "1", "time": THEN}
    return json.dumps({"cancels": cancels, "replacement": event}).encode()


@pytest.mark.parametrize("null", [{}, {"time": None}, {"subject": None}, {"time": None, "dataschema": None}])
def test_what_counts_instead_has_the_time_of_what_is_cancelled_unless_it_says_another(tenant_factory, null):
    tenant = tenant_factory()
    taking = corrections_for(tenant)

    def instead(**replacement: Any) -> dict[str, Any]:
        [accepted] = taking.read(asked(tenant, **replacement), None)
        document: dict[str, Any] = msgspec.json.decode(accepted.record[1])["data"]["replacement"]
        return document

    assert instead(**null) == instead()
    assert (instead(**null)["time"], instead(**null)["subject"]) == (THEN, str(tenant.id))
    assert instead(time="2026-11-20T10:00:00Z")["time"] == "2026-11-20T10:00:00Z"


def test_what_is_refused_again_and_again_is_not_kept(tenant_factory):
    tenant = tenant_factory(status=TenantStatus.PURGING, blocked=(Operation.SERVICE_INGEST,))
    taking, body = corrections_for(tenant), asked(tenant)
    gc.collect()
    gc.disable()
    try:
        before = sys.getrefcount(body)
        for _ in range(3):
            with pytest.raises(CorrectionsRefused):
                taking.read(body, None)
        assert sys.getrefcount(body) == before
    finally:
        gc.enable()
