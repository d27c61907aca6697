"""What a service has of its tenants, told to the tenant service's reconciler when it asks (`tenant.observe`).

Needs the extra `tenantry[kafka]`, and `tenantry[migrations]` where tenants have places of their own.
"""

from tenantry.reconciling._handlers import OBSERVE_LANES, observing_handlers
from tenantry.reconciling._report import (
    OBSERVE,
    Look,
    ObservedTenant,
    PlaceCondition,
    Report,
    RowsLeft,
    UnexpectedPlace,
    digest_of,
    has_place,
    observed,
)

__all__ = [
    "OBSERVE",
    "OBSERVE_LANES",
    "Look",
    "ObservedTenant",
    "PlaceCondition",
    "Report",
    "RowsLeft",
    "UnexpectedPlace",
    "digest_of",
    "has_place",
    "observed",
    "observing_handlers",
]
