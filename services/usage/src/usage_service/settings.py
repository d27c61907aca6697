"""What the environment says about this service; databases, brokers and credentials are the library's to read."""

from datetime import timedelta
from pathlib import Path
from typing import Self

from pydantic import Field, SecretStr, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from tenantry.events import USAGE_EVENTS, partitions_of
from usage_service.domain.field_rules import FieldRules, Treatment
from usage_service.domain.routing import RoutingPolicy
from usage_service.ingest.memory import bytes_held
from usage_service.retention.policy import Terms

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
    fields: dict[str, dict[str, Treatment]] = Field(
        default={}, description="what becomes of fields, by event type (* for all) and path: drop, hash or tokenise"
    )
    fields_key: SecretStr | None = Field(default=None, min_length=32, description="the secret behind hashes of fields")
    max_batch_events: int = Field(default=10_000, gt=0)
    dedupe_window_days: int = Field(default=1, ge=1, le=32, description="on either side of the event's own day")
    meter_members: int = Field(default=3, ge=1, le=12, description="consumers in one process: their waits overlap")
    meter_batch: int = Field(default=20_000, ge=1, description="records in one transaction, at most")
    meter_wait_ms: int = Field(default=50, ge=0, description="how long a record waits for others")
    hot_events_per_second: int = Field(
        default=10_000, ge=0, description="what a bucket of a tenant carries before it gets more; 0: nobody is spread"
    )
    hot_seconds: int = Field(default=60, ge=10, le=3600, description="for which it must carry more")
    quiet_seconds: int = Field(default=3600, ge=60, description="for which half of the buckets must have been enough")
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
    hour_rollup_days: int = Field(default=396, ge=90, description="rollups of hours stay, then become days: 13 months")
    day_rollup_days: int = Field(default=1_096, ge=90, description="rollups of whole days stay: 3 years")
    dead_letter_days: int = Field(default=396, ge=30, description="dead letters are kept: 13 months")

    @property
    def field_rules(self) -> FieldRules | None:
        """None where no field of an event is touched."""
        key = b"" if self.fields_key is None else self.fields_key.get_secret_value().encode()
        return FieldRules(self.fields, key) if self.fields else None

    @model_validator(mode="after")
    def _fields_can_be_treated(self) -> Self:
        hashes = any(treatment is Treatment.HASH for paths in self.fields.values() for treatment in paths.values())
        if hashes and self.fields_key is None:
            raise ValueError("USAGE_FIELDS hashes a field and USAGE_FIELDS_KEY is not set: a plain hash can be guessed")
        FieldRules(self.fields, b"")
        return self

    @model_validator(mode="after")
    def _has_room_for_a_body(self) -> Self:
        needed = bytes_held(self.max_body_bytes)
        if self.max_in_flight_bytes < needed:
            raise ValueError(f"USAGE_MAX_IN_FLIGHT_BYTES is below {needed}: there is no room for a body")
        return self

    @property
    def routing_policy(self) -> RoutingPolicy:
        """When tenants are spread over more keys, and gathered again."""
        return RoutingPolicy(
            hot_rate=self.hot_events_per_second,
            hot_for=timedelta(seconds=self.hot_seconds),
            quiet_for=timedelta(seconds=self.quiet_seconds),
            most=partitions_of(USAGE_EVENTS),
        )

    @property
    def terms(self) -> Terms:
        """How long what is kept."""
        return Terms(
            archive_after=timedelta(days=self.archive_after_days),
            raw=timedelta(days=self.raw_days),
            identities=timedelta(days=self.max_event_age_days + self.dedupe_window_days),
            archive=timedelta(days=self.archive_days),
            dead_letters=timedelta(days=self.dead_letter_days),
            hours=timedelta(days=self.hour_rollup_days),
            days=timedelta(days=self.day_rollup_days),
        )

    @property
    def archive_directory(self) -> Path:
        """Where the archive is without `archive_url`."""
        return self.state_dir / "usage" / "archive"

    @classmethod
    def from_env(cls) -> Self:
        """Raises pydantic's ValidationError."""
        return cls()
