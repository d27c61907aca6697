"""The settings of the billing service, from the environment. Nothing here has a secret as its default."""

from decimal import Decimal
from typing import Self

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class BillingSettings(BaseSettings):
    """Variables have the prefix `BILLING_`."""

    model_config = SettingsConfigDict(env_prefix="BILLING_", extra="ignore")

    host: str = "127.0.0.1"
    port: int = Field(default=8003, ge=0, le=65535)
    # How long after its end a period waits for usage that is still on its way.
    grace_seconds: int = Field(default=3600, ge=0)
    # What comes late to a subscription that is over is invoiced above this amount, in any currency; either way.
    write_off: Decimal = Field(default=Decimal(0), ge=0)
    cut_timeout_seconds: int = Field(default=900, gt=0)
    run_chunk: int = Field(default=500, ge=1, le=10_000)
    # The consumers whose lag the console shows, besides billing's own: the usage service's meter workers.
    usage_group: str = "usage-meter"

    @classmethod
    def from_env(cls) -> Self:
        """Raises pydantic's ValidationError."""
        return cls()
