"""Features, quotas, grants and values on the wire. Quantities are texts, in both directions."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from decimal import Decimal
from typing import Annotated, Any, Final
from uuid import UUID

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    JsonValue,
    PlainSerializer,
    WithJsonSchema,
)

from tenantry.entitlements import Source
from usage_service.domain.entitlement_periods import Cycle, Interval
from usage_service.domain.entitlements import FeatureKind
from usage_service.domain.errors import InvalidQuantity, InvalidWindow
from usage_service.domain.event_checks import has_nul
from usage_service.domain.grants import DEFAULT_PRIORITY, LOWEST_PRIORITY, ZERO, Grant
from usage_service.domain.quantities import number_text, quantity_of
from usage_service.domain.quotas import MAX_ALERTS, Quota, QuotaTerms
from usage_service.domain.windows import zone
from usage_service.entitlements.features import Feature
from usage_service.entitlements.links import events_link
from usage_service.entitlements.service import Entitlement

_EARLIEST: Final = datetime(2001, 1, 1, tzinfo=UTC)
_LATEST: Final = datetime(2200, 1, 1, tzinfo=UTC)
_MAX_CONFIG: Final = 8_192
_MAX_EVERY: Final = 1_000
NO_NUL: Final = r"^[^\x00]*$"


def _number(value: object) -> Decimal:
    if isinstance(value, float):
        raise ValueError('a decimal in a text, as in "12.50"')  # noqa: TRY004 (pydantic reports ValueErrors)
    try:
        return Decimal(quantity_of(value))
    except InvalidQuantity as error:
        raise ValueError(str(error)) from None


def _in_range(moment: datetime) -> datetime:
    if not _EARLIEST <= moment < _LATEST:
        raise ValueError("must lie between the years 2001 and 2199")
    return moment.astimezone(UTC)


def _zone_name(name: str) -> str:
    try:
        return zone(name).key
    except InvalidWindow as error:
        raise ValueError(error.reason) from None


def _storable(config: JsonValue) -> JsonValue:
    try:
        # As the database takes it: it has no NaN, no infinity and no lone surrogate.
        text, unstorable = json.dumps(config, ensure_ascii=False, allow_nan=False).encode(), has_nul(config)
    except (ValueError, RecursionError):
        raise ValueError("a JSON document in UTF-8, without NaN and infinity") from None
    if len(text) > _MAX_CONFIG:
        raise ValueError(f"at most {_MAX_CONFIG} bytes")
    if unstorable:
        raise ValueError("contains NUL, which cannot be stored")
    return config


Number = Annotated[
    Decimal,
    BeforeValidator(_number),
    PlainSerializer(number_text, return_type=str),
    WithJsonSchema({"type": "string", "pattern": r"^-?\d{1,38}(\.\d{1,18})?$", "examples": ["1000"]}),
]
Amount = Annotated[Number, Field(ge=0)]
Instant = Annotated[AwareDatetime, AfterValidator(_in_range)]
ZoneName = Annotated[str, Field(max_length=64), AfterValidator(_zone_name)]
Config = Annotated[JsonValue, AfterValidator(_storable)]


class FeatureIn(BaseModel):
    """A metered feature names the meter that uses it up."""

    model_config = ConfigDict(extra="forbid")

    kind: FeatureKind
    meter: Annotated[str, Field(min_length=1, max_length=63, pattern=NO_NUL)] | None = None


class FeatureOut(FeatureIn):
    slug: str

    @classmethod
    def of(cls, feature: Feature) -> FeatureOut:
        return cls(slug=feature.slug, kind=feature.kind, meter=feature.meter)


class QuotaIn(BaseModel):
    """`limit` is what each period gives; null gives nothing but what grants give. `alerts` are fractions of it.

    Periods are those of the calendar in `time_zone`, or counted from `anchor`. A `hard` quota ends access when it is
    used up. Overage is paid first by a later grant (`pays_overage`), and outlives its period with `preserve_overage`.
    Of what is left of the limit the next period has `rollover_max`; with `refill` it is filled up again that often.
    """

    model_config = ConfigDict(extra="forbid")

    limit: Amount | None
    period: Interval = Interval.MONTH
    hard: bool = True
    alerts: Annotated[list[Number], Field(max_length=MAX_ALERTS)] = []
    time_zone: ZoneName = "UTC"
    anchor: Instant | None = None
    pays_overage: bool = True
    preserve_overage: bool = False
    rollover_max: Amount = ZERO
    refill: Interval | None = None

    @property
    def terms(self) -> QuotaTerms:
        return QuotaTerms(
            limit=self.limit,
            period=self.period,
            hard=self.hard,
            alerts=tuple(self.alerts),
            time_zone=zone(self.time_zone),
            anchor=self.anchor,
            pays_overage=self.pays_overage,
            preserve_overage=self.preserve_overage,
            rollover_max=self.rollover_max,
            refill=self.refill,
        )


class QuotaOut(BaseModel):
    feature: str
    limit: Number | None
    period: Interval
    hard: bool
    alerts: list[Number]
    time_zone: str
    anchor: datetime
    since: datetime
    pays_overage: bool
    preserve_overage: bool
    rollover_max: Number
    refill: Interval | None
    version: int

    @classmethod
    def of(cls, feature: str, quota: Quota, version: int) -> QuotaOut:
        limit = quota.limit
        return cls(
            feature=feature,
            limit=limit.amount,
            period=quota.cycle.interval,
            hard=quota.hard,
            alerts=list(quota.alerts),
            time_zone=quota.cycle.zone.key,
            anchor=quota.cycle.anchor,
            since=quota.since,
            pays_overage=limit.pays_overage,
            preserve_overage=limit.preserve_overage,
            rollover_max=limit.rollover_max,
            refill=limit.refill,
            version=version,
        )


class RecurrenceIn(BaseModel):
    """The grant is refilled to its amount every so many intervals from `anchor` on, which is its start by default."""

    model_config = ConfigDict(extra="forbid")

    interval: Interval
    every: Annotated[int, Field(ge=1, le=_MAX_EVERY)] = 1
    anchor: Instant | None = None
    time_zone: ZoneName = "UTC"


class GrantIn(BaseModel):
    """An amount beside the limit, such as a top-up. The lowest priority burns first, then the earliest expiry.

    What is left at the end of a period goes over into the next, at least `rollover_min` and at most `rollover_max`;
    null is all of it.
    """

    model_config = ConfigDict(extra="forbid")

    amount: Annotated[Number, Field(gt=0)]
    priority: Annotated[int, Field(ge=0, le=LOWEST_PRIORITY)] = DEFAULT_PRIORITY
    effective_at: Instant | None = None
    expires_at: Instant | None = None
    rollover_min: Amount = ZERO
    rollover_max: Amount | None = None
    recurrence: RecurrenceIn | None = None

    def grant(self, now: datetime) -> Grant:
        effective = self.effective_at or now
        cycle = None
        if self.recurrence is not None:
            anchor = self.recurrence.anchor or effective.replace(minute=0, second=0, microsecond=0)
            cycle = Cycle(self.recurrence.interval, anchor, zone(self.recurrence.time_zone), self.recurrence.every)
        return Grant(
            id="",
            amount=self.amount,
            priority=self.priority,
            effective_at=effective,
            expires_at=self.expires_at,
            rollover_min=self.rollover_min,
            rollover_max=self.rollover_max,
            recurrence=cycle,
            created_at=now,
        )


class RecurrenceOut(BaseModel):
    interval: Interval
    every: int
    anchor: datetime
    time_zone: str

    @classmethod
    def of(cls, cycle: Cycle) -> RecurrenceOut:
        return cls(interval=cycle.interval, every=cycle.every, anchor=cycle.anchor, time_zone=cycle.zone.key)


class ResetIn(BaseModel):
    """`at` is a whole hour of the period that runs, the one that runs by default. Later periods are counted from it, or
    as before with `retain_anchor`.
    """

    model_config = ConfigDict(extra="forbid")

    at: Instant | None = None
    retain_anchor: bool = False


class GrantOut(BaseModel):
    id: UUID
    amount: Number
    priority: int
    effective_at: datetime
    expires_at: datetime | None
    voided_at: datetime | None
    rollover_min: Number
    rollover_max: Number | None
    recurrence: RecurrenceOut | None
    created_at: datetime

    @classmethod
    def of(cls, grant: Grant) -> GrantOut:
        return cls(
            id=UUID(grant.id),
            amount=grant.amount,
            priority=grant.priority,
            effective_at=grant.effective_at,
            expires_at=grant.expires_at,
            voided_at=grant.voided_at,
            rollover_min=grant.rollover_min,
            rollover_max=grant.rollover_max,
            recurrence=None if grant.recurrence is None else RecurrenceOut.of(grant.recurrence),
            created_at=grant.created_at,
        )


class AccessIn(BaseModel):
    """What a tenant has of a boolean or a static feature; a static one has a `config`."""

    model_config = ConfigDict(extra="forbid")

    enabled: bool
    config: Config = None


class EntitlementOut(BaseModel):
    """`balance` is what is left until `resets_at`, `limit` what the period gives, grants and rollover included.

    `source` says who gives it: what was put for the tenant itself (`override`), its plan, or its tier. `events` is
    where the events behind `usage` are listed.
    """

    feature: str
    source: Source
    has_access: bool
    balance: Number | None = None
    usage: Number | None = None
    overage: Number | None = None
    limit: Number | None = None
    hard: bool | None = None
    period_start: datetime | None = None
    resets_at: datetime | None = None
    events: str | None = None
    config: Any = None

    @classmethod
    def of(cls, tenant_id: UUID, found: Entitlement) -> EntitlementOut:
        feature, in_force, value = found.feature, found.in_force, found.value
        if in_force.access is not None:
            access = in_force.access
            return cls(feature=feature, source=in_force.source, has_access=access.enabled, config=access.config)
        if in_force.quota is None or value is None:
            raise ValueError(f"neither access nor a value of {feature}")
        return cls(
            feature=feature,
            source=in_force.source,
            has_access=value.has_access,
            balance=value.balance,
            usage=value.usage,
            overage=value.overage,
            limit=value.available,
            hard=in_force.quota.quota.hard,
            period_start=value.period.start,
            resets_at=value.period.end,
            events=events_link(tenant_id, in_force.quota.meter, value.period),
            config=in_force.config,
        )
