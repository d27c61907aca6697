"""What a tenant may not do, by state and by reason of suspension.

This is the one table (every other service only looks up the `blocked` list that the tenant document carries), so that
a tightened rule reaches all services with one record instead of with a release.

Read-only is not in it: it is a flag of the tenant whose refusal (409) differs from that of a suspension (403).
"""

from collections.abc import Iterable, Mapping
from enum import StrEnum
from types import MappingProxyType

from tenantry import Operation, TenantStatus


class SuspensionReason(StrEnum):
    """Why a tenant is suspended. Reasons are a set: lifting one leaves the others."""

    BILLING = "billing"
    ABUSE = "abuse"
    CUSTOMER = "customer"
    LEGAL = "legal"
    TRIAL = "trial"
    """The trial has expired. Set and lifted by the trial alone: a paid bill must not lengthen it, and a conversion must
    not forgive a debt."""


REASONS_BY_HAND = frozenset(SuspensionReason) - {SuspensionReason.TRIAL}


_EVERYTHING = frozenset(Operation)
# Usage sent by our own services is the evidence of what happened: it is counted until the data is purged.
_ALL_BUT_SERVICE_USAGE = _EVERYTHING - {Operation.SERVICE_INGEST}
_ALL_BUT_PORTAL = _ALL_BUT_SERVICE_USAGE - {Operation.PORTAL}

BLOCKED_BY_REASON: Mapping[SuspensionReason, frozenset[Operation]] = MappingProxyType(
    {
        # Whoever has not paid must be able to sign in, see the data and pay.
        SuspensionReason.BILLING: frozenset({Operation.WRITE, Operation.JOBS, Operation.INGEST}),
        SuspensionReason.ABUSE: _ALL_BUT_PORTAL,
        # A pause that the customer asked for: nothing moves, everything can be looked at.
        SuspensionReason.CUSTOMER: frozenset({Operation.WRITE, Operation.JOBS, Operation.INGEST}),
        SuspensionReason.LEGAL: _ALL_BUT_SERVICE_USAGE,
        # Whoever liked it must be able to sign in and become a customer.
        SuspensionReason.TRIAL: frozenset({Operation.WRITE, Operation.JOBS, Operation.INGEST}),
    }
)

BLOCKED_BY_STATUS: Mapping[TenantStatus, frozenset[Operation]] = MappingProxyType(
    {
        TenantStatus.REQUESTED: _ALL_BUT_SERVICE_USAGE,
        TenantStatus.PROVISIONING: _ALL_BUT_SERVICE_USAGE,
        TenantStatus.PROVISIONING_FAILED: _ALL_BUT_SERVICE_USAGE,
        TenantStatus.CANCELLED: _EVERYTHING,
        TenantStatus.ACTIVE: frozenset(),
        TenantStatus.SUSPENDED: frozenset(),  # its reasons say what
        TenantStatus.OFFBOARDING: _ALL_BUT_PORTAL,
        TenantStatus.PURGING: _EVERYTHING,
        TenantStatus.PURGED: _EVERYTHING,
    }
)


def blocked_operations(status: TenantStatus, reasons: Iterable[SuspensionReason]) -> tuple[Operation, ...]:
    """The operations that this state and these reasons stop together, sorted by name."""
    blocked = BLOCKED_BY_STATUS[status].union(*(BLOCKED_BY_REASON[reason] for reason in reasons))
    return tuple(sorted(blocked))
