"""The certificate of a purge, and the digest that the audit trail remembers of it."""

import hashlib
import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from tenant_service.domain.certificates import AGEING_TOPICS, Purged, certificate, certificate_digest

NOW = datetime(2026, 3, 1, tzinfo=UTC)
KEPT = {"table": "pool.invoice", "reason": "statute", "rows": 3}
PURGED = Purged(
    tenant_id=UUID(int=1),
    run_id=UUID(int=2),
    requested_by="operator",
    requested_at=NOW,
    purge_began_at=NOW + timedelta(days=30),
    ended_at=NOW + timedelta(days=31),
    key_destroyed=True,
    services={"billing": {"tables": [], "exceptions": [KEPT]}, "app": {"tables": [{"rows_before": 7}]}},
    exports={UUID(int=3): NOW + timedelta(days=40)},
)


def test_the_digest_is_of_the_whole_certificate_in_canonical_form() -> None:
    document = certificate(PURGED)
    text = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False)

    assert certificate_digest(document) == hashlib.sha256(text.encode()).hexdigest()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("tenant_id", UUID(int=9)),
        ("run_id", UUID(int=9)),
        ("requested_by", "somebody"),
        ("requested_at", NOW - timedelta(days=1)),
        ("purge_began_at", NOW),
        ("ended_at", NOW),
        ("key_destroyed", False),
        ("services", {"app": {"tables": [{"rows_before": 8}]}}),
        ("exports", {}),
    ],
)
def test_whatever_is_changed_the_digest_is_another(field: str, value: Any) -> None:
    changed = replace(PURGED, **{field: value})

    assert certificate_digest(certificate(changed)) != certificate_digest(certificate(PURGED))
    assert certificate(replace(PURGED)) == certificate(PURGED)


def test_what_is_kept_is_said_with_the_service_that_keeps_it_and_until_when() -> None:
    document = certificate(PURGED)

    assert document["exceptions"] == [{"service": "billing", **KEPT}]
    assert [each["gone_after"] for each in document["exports"]] == ["2026-04-10T00:00:00+00:00"]
    assert {each["topic"]: each["gone_after_days"] for each in document["topics"]} == AGEING_TOPICS
