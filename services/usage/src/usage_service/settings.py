"""What the environment says about this service; databases, brokers and credentials are the library's to read."""

from pathlib import Path
from typing import Self

from pydantic import Field, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from usage_service.ingest.memory import bytes_held

MEBIBYTE = 1024 * 1024


class UsageSettings(BaseSettings):
    """Variables have the prefix `USAGE_`."""

    model_config = SettingsConfigDict(env_prefix="USAGE_", extra="ignore", frozen=True)

    host: str = "127.0.0.1"
    port: int = 8002
    max_body_bytes: int = Field(default=4 * MEBIBYTE, gt=0, description="of POST /v1/events")
    max_in_flight_bytes: int = Field(
        default=96 * MEBIBYTE, gt=0, description="of requests that are being served, and of events that wait for Kafka"
    )
    max_batch_events: int = Field(default=10_000, gt=0)
    dedupe_window_days: int = Field(default=1, ge=1, le=32, description="on either side of the event's own day")
    meter_members: int = Field(default=3, ge=1, le=12, description="consumers in one process: their waits overlap")
    meter_batch: int = Field(default=10_000, ge=1, description="records in one transaction, at most")
    meter_wait_ms: int = Field(default=50, ge=0, description="how long a record waits for others")
    clock_wait_seconds: int = Field(default=30, gt=0, description="how long clock.advance waits for the directory")

    archive_url: str | None = Field(
        default=None, description="where raw events go: file:///…, s3://…; by default a directory of the state"
    )
    state_dir: Path = Field(default=Path(".tenantry/state"), validation_alias="TENANTRY_STATE_DIR")
    archive_after_days: int = Field(default=1, ge=1, le=30, description="after its end a day is archived")
    raw_days: int = Field(default=40, ge=36, description="raw events stay in PostgreSQL")
    max_event_age_days: int = Field(
        default=35, ge=35, le=365, description="the greatest of any tier; with the window, identities are kept"
    )
    archive_days: int = Field(default=396, ge=90, description="raw events stay in the archive: 13 months")
    dead_letter_days: int = Field(default=396, ge=30, description="dead letters are kept: 13 months")

    @model_validator(mode="after")
    def _has_room_for_a_body(self) -> Self:
        needed = bytes_held(self.max_body_bytes)
        if self.max_in_flight_bytes < needed:
            raise ValueError(f"USAGE_MAX_IN_FLIGHT_BYTES is below {needed}: there is no room for a body")
        return self

    @property
    def archive_directory(self) -> Path:
        """Where the archive is without `archive_url`."""
        return self.state_dir / "usage" / "archive"

    @classmethod
    def from_env(cls) -> Self:
        """Raises pydantic's ValidationError."""
        return cls()
