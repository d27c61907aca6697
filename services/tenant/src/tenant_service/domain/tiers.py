"""What a tier says."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from tenantry import Isolation


@dataclass(frozen=True, slots=True)
class TierContent:
    """Everything that a version of a tier says."""

    max_event_age_seconds: int | None
    limits: Mapping[str, Any]
    entitlements: Mapping[str, Any]
    isolation: Isolation
    placement: Mapping[str, Any]
    constraints: Mapping[str, Any]

    def document(self) -> dict[str, Any]:
        """The content as plain values, by the names of its fields."""
        return asdict(self)
