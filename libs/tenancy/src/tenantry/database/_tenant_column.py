"""How a product names its tenants in its tables: the column, its type, and the setting that policies read."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from tenantry._tenant import Tenant
from tenantry.database._errors import UnusableTenantKey
from tenantry.database._names import TENANT_SETTING

_BITS: Final = {"smallint": 16, "integer": 32, "bigint": 64}
_TYPES: Final = frozenset({"uuid", "text", *_BITS})
_SETTING: Final = re.compile(r"[a-z_][a-z0-9_]*(\.[a-z_][a-z0-9_]*)+", re.ASCII)
_INTEGER: Final = re.compile(r"0|-?[1-9][0-9]*", re.ASCII)

TenantKey = UUID | int | str
"""What stands in the tenant column."""


@dataclass(frozen=True, slots=True)
class TenantColumn:
    """The tenant column of a product: ``TenantColumn("org_id", "bigint", setting="app.org_id")``.

    ``setting`` is what the policies read. ``app.tenant_id`` always holds the tenant's id, so a column with anything
    else in it has a setting of its own. ``key`` tells the column's value for a tenant, by default the id for
    ``app.tenant_id`` and the external id for any other setting. Raises ValueError for what PostgreSQL could not use.
    """

    name: str = "tenant_id"
    type: str = "uuid"
    setting: str = TENANT_SETTING
    key: Callable[[Tenant], object] | None = None

    def __post_init__(self) -> None:
        if not self.name:
            msg = "the tenant column has no name"
            raise ValueError(msg)
        if self.type not in _TYPES:
            msg = f"a tenant column of type {self.type!r} is not supported: {', '.join(sorted(_TYPES))}"
            raise ValueError(msg)
        if _SETTING.fullmatch(self.setting) is None:
            msg = f"{self.setting!r} is not the name of a setting of one's own, such as app.org_id"
            raise ValueError(msg)
        if not self.has_own_setting and (self.type != "uuid" or self.key is not None):
            msg = f"{TENANT_SETTING} holds the tenant's id; a column with another key needs another setting"
            raise ValueError(msg)

    @property
    def has_own_setting(self) -> bool:
        """Whether the key is bound beside the tenant's id."""
        return self.setting != TENANT_SETTING

    def key_of(self, tenant: Tenant) -> TenantKey:
        """The value of the column in rows of ``tenant``. Raises UnusableTenantKey; nothing is guessed."""
        if not self.has_own_setting:
            return tenant.id
        given = tenant.external_id if self.key is None else self.key(tenant)
        key = self._parse(given)
        if key is None:
            msg = f"The tenant's key for column {self.name} is not of type {self.type}."
            raise UnusableTenantKey(msg)
        return key

    def _parse(self, given: object) -> TenantKey | None:
        if self.type == "uuid":
            return given if isinstance(given, UUID) else _parse_uuid(given)
        if self.type == "text":
            return given if isinstance(given, str) and given and given.isprintable() else None
        # A bool is an int to Python, and "042" would be another spelling of the tenant 42.
        if isinstance(given, str) and _INTEGER.fullmatch(given):
            given = int(given)
        if type(given) is not int:
            return None
        bound = 1 << (_BITS[self.type] - 1)
        return given if -bound <= given < bound else None


def _parse_uuid(given: object) -> UUID | None:
    if not isinstance(given, str):
        return None
    try:
        parsed = UUID(given)
    except ValueError:
        return None
    return parsed if str(parsed) == given.lower() else None


TENANT_ID: Final = TenantColumn()
"""The column of the backbone's own services."""
