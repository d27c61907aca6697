"""A tenant's claim on a domain: pending until it is proven, verified, failed when the proof has been gone for too long.

A CNAME or an address that points at the platform proves nothing: records that dangle point there, too. Only a TXT
record with the random text of the claim does, which nobody but the holder of the domain's DNS can have put there.
"""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

CHALLENGE_LABEL = "_tenantry-challenge"
CHALLENGE_PREFIX = "tenantry-domain-verification="


class DomainState(StrEnum):
    PENDING = "pending"
    VERIFIED = "verified"
    FAILED = "failed"
    RELEASED = "released"


@dataclass(frozen=True, slots=True)
class DomainPolicy:
    """How often a proof is looked for again, how long it may be missing, how long a name is held back."""

    check_every: timedelta
    grace: timedelta
    quarantine: timedelta


def challenge_name(domain: str) -> str:
    """Where the TXT record is looked for."""
    return f"{CHALLENGE_LABEL}.{domain}"


def is_proof(records: Collection[str], challenge: str) -> bool:
    """Whether one of the TXT records is exactly the challenge; others may stand beside it."""
    return any(record.strip() == challenge for record in records)


@dataclass(frozen=True, slots=True)
class Recheck:
    """What becomes of a verified domain after it was looked at again."""

    state: DomainState
    failing_since: datetime | None
    next_check_at: datetime | None


def recheck(*, proven: bool, failing_since: datetime | None, now: datetime, policy: DomainPolicy) -> Recheck:
    """The domain stays verified while its proof is there, or has not been missing for longer than the grace."""
    if proven:
        return Recheck(DomainState.VERIFIED, None, now + policy.check_every)
    since = now if failing_since is None else failing_since
    if now - since < policy.grace:
        # Once it is missing it is looked for more often, so that a slip of the owner is found to be mended soon.
        return Recheck(DomainState.VERIFIED, since, now + min(policy.check_every, timedelta(hours=1)))
    return Recheck(DomainState.FAILED, since, None)
