"""What the platform says about a flag: the value of `platform.state.v1` under the key `flag/<name>`."""

from typing import Any

import msgspec

Choice = bool | str
"""How a flag is set: the name of a variant, or true and false for the variants `on` and `off`."""

ON = "on"
OFF = "off"


class Rollout(msgspec.Struct, frozen=True, kw_only=True):
    """A part of all tenants gets `variant`: the same ones every time, and more of them when the part grows."""

    variant: str
    percentage: float
    per_key: bool = False
    """Whether the caller's key (such as a user's id) counts beside the tenant, so that a tenant can be split."""


class Flag(msgspec.Struct, frozen=True, kw_only=True):
    """A version of a flag's definition. `default`, `tiers` and `rollout` name variants."""

    name: str
    version: int
    description: str = ""
    enabled: bool = True
    """Off: everybody gets the default, whatever else is said; only a tier's constraint wins over it."""
    variants: dict[str, Any]
    default: str
    tiers: dict[str, str] = {}
    rollout: Rollout | None = None
    writable_by: str = "operator"
    """`operator` or `tenant`: whether an administrator of a tenant may set the flag for the tenant."""

    def variant_of(self, choice: object) -> str | None:
        """The variant that a choice names, None where there is no such one."""
        if isinstance(choice, bool):
            choice = ON if choice else OFF
        return choice if isinstance(choice, str) and choice in self.variants else None
