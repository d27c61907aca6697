"""How much a worker does at a time, and how long it waits."""

from typing import Annotated, Self

from msgspec import Meta, Struct

from tenantry._environment import settings_from_env


class JobSettings(Struct, frozen=True, kw_only=True):
    """From the environment as `TENANTRY_JOBS_<NAME>`; the times are in seconds."""

    # Jobs of one process at a time, and of them those that only tenants without a running job may have.
    concurrency: Annotated[int, Meta(ge=1, le=1_000)] = 8
    reserve: Annotated[int, Meta(ge=0)] = 1
    # How often the queues are looked at; those of shared databases say by themselves that there is something.
    poll_seconds: Annotated[float, Meta(gt=0)] = 1.0
    own_database_poll_seconds: Annotated[float, Meta(gt=0)] = 5.0
    # A worker that has not been heard of for so long is dead, and its jobs are run by others.
    heartbeat_seconds: Annotated[float, Meta(gt=0)] = 5.0
    lost_after_seconds: Annotated[float, Meta(gt=0)] = 30.0
    # What jobs get to end when their worker is stopped; those that have not ended then are run anew later.
    drain_seconds: Annotated[float, Meta(ge=0)] = 5.0
    keep_failed_days: Annotated[int, Meta(ge=0)] = 30

    def __post_init__(self) -> None:
        if self.reserve >= self.concurrency > 1:
            raise ValueError("reserve must be less than concurrency")
        if self.lost_after_seconds <= 2 * self.heartbeat_seconds:
            raise ValueError("lost_after_seconds must be more than two heartbeats")

    @classmethod
    def from_env(cls) -> Self:
        """Raises StartupRefused."""
        return settings_from_env(cls, "TENANTRY_JOBS_")
