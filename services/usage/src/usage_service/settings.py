"""What the environment says about this service; databases, brokers and credentials are the library's to read."""

from typing import Self

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

MEBIBYTE = 1024 * 1024


class UsageSettings(BaseSettings):
    """Variables have the prefix `USAGE_`."""

    model_config = SettingsConfigDict(env_prefix="USAGE_", extra="ignore", frozen=True)

    host: str = "127.0.0.1"
    port: int = 8002
    max_body_bytes: int = Field(default=4 * MEBIBYTE, gt=0, description="of POST /v1/events")
    max_batch_events: int = Field(default=10_000, gt=0)
    dedupe_window_days: int = Field(default=1, ge=1, le=32, description="on either side of the event's own day")
    meter_members: int = Field(default=3, ge=1, le=12, description="consumers in one process: their waits overlap")
    meter_batch: int = Field(default=10_000, ge=1, description="records in one transaction, at most")
    meter_wait_ms: int = Field(default=50, ge=0, description="how long a record waits for others")
    clock_wait_seconds: int = Field(default=30, gt=0, description="how long clock.advance waits for the directory")

    @classmethod
    def from_env(cls) -> Self:
        """Raises pydantic's ValidationError."""
        return cls()
