"""What a flag is for a tenant. Pure: the same arguments give the same answer in every process and for ever."""

from enum import StrEnum
from hashlib import sha256
from typing import Any, Final
from uuid import UUID

import msgspec

from tenantry.config import CONSTRAINT, Source
from tenantry.features._flags import Choice, Flag

# A percentage is counted in hundredths, so that a rollout can begin with one tenant in ten thousand.
_PARTS: Final = 10_000


class Reason(StrEnum):
    """Why a flag has its value; the words are OpenFeature's."""

    STATIC = "STATIC"
    """The definition has one value for everybody."""
    DEFAULT = "DEFAULT"
    """Nothing that is said about tiers, tenants or regions is about this tenant."""
    TARGETING_MATCH = "TARGETING_MATCH"
    """A layer, a constraint or the flag's own list of tiers decides."""
    SPLIT = "SPLIT"
    """The rollout decides, in favour or against."""
    DISABLED = "DISABLED"


class Evaluation(msgspec.Struct, frozen=True, kw_only=True):
    """A flag's value for a tenant. `source` is the layer or constraint that decides, where one does."""

    flag: str
    value: Any
    variant: str
    reason: Reason
    source: Source | None = None


def evaluate(
    flag: Flag,
    *,
    tenant_id: UUID,
    tier: str,
    choice: Choice | None = None,
    source: Source | None = None,
    key: str | None = None,
) -> Evaluation:
    """The flag for a tenant of `tier`. `choice` is what the merged namespace `features` says, and `source` who says it.

    In this order: a constraint of the tier, the switch that disables the flag, the layers from the tenant's outwards,
    the flag's list of tiers, the rollout, the default. A choice that names no variant is passed over.
    """
    chosen = flag.variant_of(choice)
    forced = source is not None and source.layer == CONSTRAINT
    if not flag.enabled and not (forced and chosen):
        return _of(flag, flag.default, Reason.DISABLED)
    if chosen is not None:
        return _of(flag, chosen, Reason.TARGETING_MATCH, source)
    for_tier = flag.variant_of(flag.tiers.get(tier))
    if for_tier is not None:
        return _of(flag, for_tier, Reason.TARGETING_MATCH)
    rollout = flag.rollout
    if rollout is None:
        return _of(flag, flag.default, Reason.DEFAULT if flag.tiers else Reason.STATIC)
    inside = part_of(flag.name, tenant_id, key if rollout.per_key else None) < round(rollout.percentage * 100)
    variant = flag.variant_of(rollout.variant) if inside else None
    return _of(flag, variant or flag.default, Reason.SPLIT)


def part_of(flag: str, tenant_id: UUID, key: str | None = None) -> int:
    """Which of ten thousand equal parts a tenant (and a key of its own) falls into: who is in a small part stays in."""
    text = f"{flag}\n{tenant_id}" if key is None else f"{flag}\n{tenant_id}\n{key}"
    return int.from_bytes(sha256(text.encode(errors="surrogatepass")).digest()[:8], "big") % _PARTS


def _of(flag: Flag, variant: str, reason: Reason, source: Source | None = None) -> Evaluation:
    return Evaluation(flag=flag.name, value=flag.variants[variant], variant=variant, reason=reason, source=source)
