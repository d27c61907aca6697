"""Flags in local memory, joined with what the layers say about them."""

from collections import OrderedDict
from collections.abc import Iterable
from datetime import datetime
from typing import Final

import msgspec

from tenantry._tenant import Tenant, Tier
from tenantry.config import ConfigStore, Effective, LayerDocument, constraint_of, resolve
from tenantry.features._evaluation import Evaluation, evaluate
from tenantry.features._flags import Flag
from tenantry.features._settings import FEATURES, active_choices

CACHED_TENANTS: Final = 4096


class _Cached(msgspec.Struct, frozen=True):
    version: int
    tier: tuple[str, int, str | None]
    since: datetime
    until: datetime | None
    effective: Effective


class FlagStore:
    """Every flag, and its value for a tenant. Not thread-safe: one event loop feeds and reads it."""

    def __init__(self, config: ConfigStore, *, cached_tenants: int = CACHED_TENANTS) -> None:
        self._config = config
        self._flags: dict[str, Flag] = {}
        self._cached: OrderedDict[str, _Cached] = OrderedDict()
        self._cached_tenants = cached_tenants

    def upsert(self, flag: Flag) -> bool:
        """Take in `flag` unless its version is known already. Returns whether anything changed."""
        known = self._flags.get(flag.name)
        if known is not None and known.version >= flag.version:
            return False
        self._flags[flag.name] = flag
        return True

    def remove(self, name: str) -> None:
        self._flags.pop(name, None)

    def get(self, name: str) -> Flag | None:
        return self._flags.get(name)

    def names(self) -> list[str]:
        return sorted(self._flags)

    def evaluate(
        self, name: str, tenant: Tenant, tier: Tier | None, *, now: datetime, key: str | None = None
    ) -> Evaluation | None:
        """The flag for the tenant at `now`, the tenant's own present; None where there is no such flag."""
        flag = self._flags.get(name)
        if flag is None:
            return None
        effective = self._choices(tenant, tier, now)
        choice = effective.document.get(name)
        source = effective.provenance.get(f"/{name}")
        return evaluate(flag, tenant_id=tenant.id, tier=tenant.tier, choice=choice, source=source, key=key)

    def _choices(self, tenant: Tenant, tier: Tier | None, now: datetime) -> Effective:
        place = str(tenant.id)
        situation = (tenant.tier, 0 if tier is None else tier.version, tenant.region)
        cached = self._cached.get(place)
        if (
            cached is not None
            and (cached.version, cached.tier) == (self._config.version, situation)
            and cached.since <= now
            and (cached.until is None or now < cached.until)
        ):
            self._cached.move_to_end(place)
            return cached.effective
        effective, until = choices_at(self._config.layers(tenant, FEATURES), tier, now)
        self._cached[place] = _Cached(self._config.version, situation, now, until, effective)
        self._cached.move_to_end(place)
        if len(self._cached) > self._cached_tenants:
            self._cached.popitem(last=False)
        return effective


def choices_at(layers: Iterable[LayerDocument], tier: Tier | None, now: datetime) -> tuple[Effective, datetime | None]:
    """What the layers of `features` and the tier's constraint say at `now`, and when that ends by itself.

    What has ended in a narrow layer gives way to the wider one, so endings are looked at before the layers are merged.
    """
    active, ends = [], []
    for layer in layers:
        choices, end = active_choices(layer.document, now)
        active.append(msgspec.structs.replace(layer, document=choices))
        if end is not None:
            ends.append(end)
    return resolve(active, constraint_of(tier, FEATURES)), min(ends, default=None)
