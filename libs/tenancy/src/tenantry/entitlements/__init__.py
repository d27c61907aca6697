"""What a tenant may still use, from local memory: the balances that the usage service publishes, and until there is
one, what the tenant's tier and plan say.

`BalanceReader` needs the extra `tenantry[kafka]`, `requires` FastAPI.
"""

from typing import TYPE_CHECKING

from tenantry._exports import lazy_exports
from tenantry.entitlements._balance import WATERMARK_KEY, Balance
from tenantry.entitlements._entitlements import Allowance, Entitlements, WhenUnsure
from tenantry.entitlements._plans import BillingState, EntitledTenants, PlanHeld, PlanStore
from tenantry.entitlements._store import BalanceStore
from tenantry.entitlements._taken import Taken
from tenantry.entitlements._terms import (
    InvalidEntitlements,
    QuotaTerms,
    Source,
    Terms,
    effective,
    parse_entitlements,
    readable_entitlements,
)

if TYPE_CHECKING:
    from tenantry.entitlements._reader import BalanceReader
    from tenantry.entitlements._route import requires

__all__ = [
    "WATERMARK_KEY",
    "Allowance",
    "Balance",
    "BalanceReader",
    "BalanceStore",
    "BillingState",
    "EntitledTenants",
    "Entitlements",
    "InvalidEntitlements",
    "PlanHeld",
    "PlanStore",
    "QuotaTerms",
    "Source",
    "Taken",
    "Terms",
    "WhenUnsure",
    "effective",
    "parse_entitlements",
    "readable_entitlements",
    "requires",
]

__getattr__ = lazy_exports(__name__, {"_reader": ("BalanceReader",), "_route": ("requires",)})
