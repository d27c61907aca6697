"""How much of a service one tenant may take: rates, concurrency, connections, and who is next when it is full."""

from tenantry.limits._buckets import Policy, TokenBuckets, Verdict
from tenantry.limits._connections import ConnectionShares
from tenantry.limits._document import DEFAULT_CLASS, REQUEST_CLASSES, InvalidLimits, Rate, TenantLimits, parse_limits
from tenantry.limits._fair_queue import FairQueue, Share
from tenantry.limits._gate import FairGate, Place, ProcessFull, TenantFull
from tenantry.limits._limiter import Admission, Limiter, SharedTake
from tenantry.limits._refusal_pace import RefusalPace

__all__ = [
    "DEFAULT_CLASS",
    "REQUEST_CLASSES",
    "Admission",
    "ConnectionShares",
    "FairGate",
    "FairQueue",
    "InvalidLimits",
    "Limiter",
    "Place",
    "Policy",
    "ProcessFull",
    "Rate",
    "RefusalPace",
    "Share",
    "SharedTake",
    "TenantFull",
    "TenantLimits",
    "TokenBuckets",
    "Verdict",
    "parse_limits",
]
