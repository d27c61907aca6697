"""What comes in over HTTP and what goes out."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from tenantry import Isolation, Tier

TierName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9](?:[a-z0-9_.-]{0,62}[a-z0-9])?$")]
MaxAge = Annotated[int, Field(ge=0, le=100 * 366 * 86400)]


class TierPut(BaseModel):
    model_config = ConfigDict(extra="forbid")

    max_event_age_seconds: MaxAge | None = Field(
        None, description="How old a usage event may be when it is received; null: any age."
    )
    limits: dict[str, Any] = Field(default_factory=dict)
    entitlements: dict[str, Any] = Field(default_factory=dict)
    isolation: Isolation = Isolation.POOL


class TierOut(BaseModel):
    name: str
    version: int
    max_event_age_seconds: int | None
    limits: dict[str, Any]
    entitlements: dict[str, Any]
    isolation: Isolation

    @classmethod
    def of(cls, tier: Tier) -> "TierOut":
        return cls(
            name=tier.name,
            version=tier.version,
            max_event_age_seconds=tier.max_event_age_seconds,
            limits=tier.limits,
            entitlements=tier.entitlements,
            isolation=tier.isolation,
        )
