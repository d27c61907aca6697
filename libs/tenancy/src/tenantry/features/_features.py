"""Flags of the current tenant, as a service asks for them."""

from typing import Any

from tenantry._clock import Clock
from tenantry._context import current_tenant
from tenantry._directory import TenantDirectory
from tenantry._errors import PermissionDenied
from tenantry._tenant import Tenant
from tenantry.features._evaluation import Evaluation
from tenantry.features._store import FlagStore


class FeatureOff(PermissionDenied):
    """The tenant does not have the feature."""

    type = "entitlement-missing"
    title = "The feature is not part of what the tenant has"


class Features:
    """Answers from local memory; nothing here waits or fails because another service is away."""

    def __init__(self, flags: FlagStore, directory: TenantDirectory, clock: Clock) -> None:
        self.flags = flags
        self.directory = directory
        self._clock = clock

    def evaluate(self, name: str, *, key: str | None = None, tenant: Tenant | None = None) -> Evaluation | None:
        """The flag for the current tenant (or `tenant`) at its present; None where there is no such flag.

        `key` splits a tenant where the rollout says `per_key`. Raises `NoTenant` where no tenant is set or given.
        """
        tenant = tenant or current_tenant()
        return self.flags.evaluate(name, tenant, self.directory.tier(tenant.tier), now=tenant.now(self._clock), key=key)

    def value(self, name: str, default: Any = None, *, key: str | None = None) -> Any:
        """The flag's value for the current tenant, `default` where there is no such flag."""
        evaluation = self.evaluate(name, key=key)
        return default if evaluation is None else evaluation.value

    def is_on(self, name: str, *, default: bool = False, key: str | None = None) -> bool:
        """Whether a boolean flag is on for the current tenant; `default` where there is no such flag."""
        return self.value(name, default, key=key) is True

    def require(self, name: str, *, default: bool = False) -> None:
        """Raises `FeatureOff` (403 `entitlement-missing`) unless the flag is on for the current tenant."""
        if not self.is_on(name, default=default):
            raise FeatureOff(f"The feature {name} is off for this tenant.")
