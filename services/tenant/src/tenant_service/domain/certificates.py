"""What is certified of a purge: who asked, what every service deleted, and what is kept and why."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from tenant_service.domain.audit_chain import canonical

FORMAT = "tenantry-purge/1"

# Messages age out by themselves, and no single one can be deleted; they hold ids and quantities, not names. Days until
# the last is gone.
AGEING_TOPICS: Mapping[str, int] = {
    "tenant.events.v1": 30,
    "tenant.requests.v1": 30,
    "tenant.acks.v1": 30,
    "usage.events.v1": 7,
    # Tombstones withdraw them; this is the latest that compaction can take.
    "usage.rollups.v1": 40,
    "usage.alerts.v1": 30,
    "billing.events.v1": 30,
}


@dataclass(frozen=True, slots=True)
class Purged:
    """What the certificate is about.

    `services` has the answer of each service to the request to purge, `exports` when the files of each export go.
    """

    tenant_id: UUID
    run_id: UUID
    requested_by: str
    requested_at: datetime
    purge_began_at: datetime
    ended_at: datetime
    key_destroyed: bool
    services: Mapping[str, Mapping[str, Any]]
    exports: Mapping[UUID, datetime]


def certificate(purged: Purged) -> dict[str, Any]:
    """The certificate as a document; the same purge makes the same one."""
    return {
        "format": FORMAT,
        "tenant_id": str(purged.tenant_id),
        "run_id": str(purged.run_id),
        "requested_by": purged.requested_by,
        "requested_at": purged.requested_at.isoformat(),
        "purge_began_at": purged.purge_began_at.isoformat(),
        "ended_at": purged.ended_at.isoformat(),
        "keys_destroyed": ["data key of the tenant's secrets"] if purged.key_destroyed else [],
        "services": {name: dict(purged.services[name]) for name in sorted(purged.services)},
        "exceptions": _exceptions(purged.services),
        "topics": [
            {"topic": topic, "gone_after_days": days, "reason": "messages age out"}
            for topic, days in AGEING_TOPICS.items()
        ],
        "exports": [
            {
                "export_id": str(export_id),
                "gone_after": gone.isoformat(),
                "reason": "whoever asked for it has time to read",
            }
            for export_id, gone in purged.exports.items()
        ],
        "backups": "not edited; a restore is followed by this purge anew",
    }


def certificate_digest(document: Mapping[str, Any]) -> str:
    """SHA-256 of the canonical JSON of a certificate, in hex: what the audit trail remembers of it."""
    return hashlib.sha256(canonical(document).encode()).hexdigest()


def _exceptions(services: Mapping[str, Mapping[str, Any]]) -> Sequence[Mapping[str, Any]]:
    return [
        {"service": name, **exception}
        for name in sorted(services)
        for exception in services[name].get("exceptions", ())
    ]
