"""How the reconciler goes about it in this deployment."""

from dataclasses import dataclass
from datetime import timedelta


@dataclass(frozen=True, slots=True)
class ReconcilingPolicy:
    """`services` are asked what they have, and `provisioning` are those that must have provisioned every tenant.

    Without `every` nothing is reconciled but what is asked for. What differs at two looks that are `tolerance` apart is
    a finding. A service that says nothing for `answer_within` is silent, and one whose directory is older than
    `longest_lag` seconds is not judged by it. Of a service that misses more than `missing_places` places none is made
    again: that is no accident with one of them, and empty places would hide what has happened. `repair` says whether
    anything is repaired in the rounds of `every`.
    """

    services: tuple[str, ...]
    provisioning: tuple[str, ...] = ()
    every: timedelta | None = timedelta(minutes=10)
    repair: bool = True
    tolerance: timedelta = timedelta(seconds=5)
    answer_within: timedelta = timedelta(seconds=60)
    longest_lag: float = 30.0
    missing_places: int = 10
    stuck_after: timedelta = timedelta(minutes=15)
    # Tenants of a page: a report of all of them is some hundred kilobytes, which is less than a record may have.
    page: int = 500
