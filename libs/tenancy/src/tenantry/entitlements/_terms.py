"""What a tier or a plan entitles its tenants to: documents of `{feature: value}`, read the same way by whoever asks.

    {"sso": true, "exports": false, "support": "gold", "seats": 25,
     "regions": {"config": ["eu", "us"]},
     "documents": {"limit": "1000", "period": "month", "hard": true, "alerts": ["0.8", "1"], "rollover_max": "200"},
     "beta": {"forbid": true}}

A number is the config of a static feature and the limit of a hard quota of a month, whichever is asked for. A plan
overrides its tenants' tier feature by feature; what the tier forbids stays forbidden, whoever gives it.
"""

import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from enum import StrEnum
from typing import Annotated, Any, Final, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec

from tenantry._errors import FieldError, InvalidRequest

Period = Literal["hour", "day", "week", "month", "year"]

_MAX_ALERTS: Final = 10
_NAME: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
# The numbers of quotas that are put, and of events: JSON's grammar, of so many digits and exponents.
_NUMBER: Final = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")
_LONGEST: Final = 200
_MAX_DIGITS: Final = 38
_EXPONENTS: Final = range(-18, 21)
_HOUR: Final = 3600
_MAX_CONFIG: Final = 8_192


class Source(StrEnum):
    """Who said what a tenant has."""

    OVERRIDE = "override"
    PLAN = "plan"
    TIER = "tier"


class InvalidEntitlements(InvalidRequest):
    """A document that entitles to what cannot be."""

    type = "invalid-entitlements"
    title = "The entitlements cannot be read"


class QuotaTerms(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a metered feature gives in each period; the fields are those of `PUT /v1/tenants/{id}/quotas/{meter}`.

    Those of a plan may be counted from the start of the subscription, where they are `anniversary`.
    """

    limit: Decimal | None
    period: Period = "month"
    hard: bool = True
    alerts: tuple[Decimal, ...] = ()
    time_zone: Annotated[str, msgspec.Meta(max_length=64)] = "UTC"
    anchor: datetime | None = None
    anniversary: bool = False
    rollover_max: Decimal = Decimal(0)
    """What of an unused limit the next period has too, until its end."""
    refill: Period | None = None
    """How often within the period the limit is filled up again."""
    pays_overage: bool = True
    preserve_overage: bool = False


class Terms(msgspec.Struct, frozen=True, kw_only=True):
    """What is said of one feature. One that has a `quota` and a `config` is whichever of them it is asked for as."""

    has_access: bool
    config: Any = None
    quota: QuotaTerms | None = None
    forbidden: bool = False


FORBIDDEN: Final = Terms(has_access=False, forbidden=True)

TermsOf = Mapping[str, Terms]
"""By feature."""


def parse_entitlements(document: Mapping[str, Any], *, of: Literal["tier", "plan"]) -> dict[str, Terms]:
    """What a document says of each feature. Raises InvalidEntitlements with every value that cannot be."""
    found, errors = _parse(document, of)
    if errors:
        raise InvalidEntitlements(f"{errors[0]['loc'][-1]}: {errors[0]['msg']}", errors=errors)
    return found


def readable_entitlements(document: Mapping[str, Any], *, of: Literal["tier", "plan"]) -> dict[str, Terms]:
    """What of a stored document can be read: one value that nobody understands must not take the others away."""
    return _parse(document, of)[0]


def effective(feature: str, *, tier: TermsOf, plans: Iterable[TermsOf]) -> tuple[Source, Terms] | None:
    """What a tenant has of a feature by its tier and its plans, the strongest plan last; None where neither says."""
    of_tier = tier.get(feature)
    if of_tier is not None and of_tier.forbidden:
        return Source.TIER, of_tier
    of_plans = [plan[feature] for plan in plans if feature in plan]
    if of_plans:
        return Source.PLAN, of_plans[-1]
    return None if of_tier is None else (Source.TIER, of_tier)


def _parse(document: Mapping[str, Any], of: Literal["tier", "plan"]) -> tuple[dict[str, Terms], list[FieldError]]:
    found: dict[str, Terms] = {}
    errors: list[FieldError] = []
    for feature, value in document.items():
        try:
            found[_named(feature)] = _terms(value, of)
        except (ValueError, msgspec.ValidationError) as error:
            errors.append({"loc": ["body", "entitlements", feature], "msg": str(error)})
    return found, errors


def _named(feature: str) -> str:
    if not _NAME.fullmatch(feature):
        raise ValueError("a feature has lower-case letters, digits, -, _ and ., at most 63 characters")
    return feature


def _terms(value: Any, of: Literal["tier", "plan"]) -> Terms:
    match value:
        case bool():
            return Terms(has_access=value)
        case int() | str():
            number = _number(_storable(value))
            return Terms(has_access=True, config=value, quota=None if number is None else QuotaTerms(limit=number))
        case {"forbid": True, **rest} if not rest and of == "tier":
            return FORBIDDEN
        case {"config": config, **rest} if not rest:
            return Terms(has_access=True, config=_storable(config))
        case {"limit": _, **_rest}:
            return Terms(has_access=True, quota=_quota(value, of))
    forbid = ', {"forbid": true}' if of == "tier" else ""
    raise ValueError(f'true, false, a whole number, a text, {{"config": …}}, {{"limit": …}}{forbid}')


def _quota(value: Mapping[str, Any], of: Literal["tier", "plan"]) -> QuotaTerms:
    for name in ("limit", "rollover_max"):
        if isinstance(value.get(name), float):
            raise ValueError(f'{name}: a decimal in a text, as in "12.50"')  # noqa: TRY004 - reported as it is
    alerts = _list(value.get("alerts"))
    if any(isinstance(each, float) for each in alerts):
        raise ValueError('alerts: decimals in texts, as in "0.8"')
    for amount in (value.get("limit"), value.get("rollover_max"), *alerts):
        if isinstance(amount, int | str) and _number(amount) is None:
            raise ValueError(
                f"an amount is a number of zero or more, with at most {_MAX_DIGITS} digits and 18 decimals"
            )
    quota = msgspec.convert(value, QuotaTerms, strict=False)
    if len(quota.alerts) > _MAX_ALERTS or len(set(quota.alerts)) != len(quota.alerts):
        raise ValueError(f"alerts: at most {_MAX_ALERTS} different fractions")
    if any(not 0 < each <= _MAX_ALERTS for each in quota.alerts):
        raise ValueError('alerts: fractions of the limit, as in "0.8": more than 0 and at most 10')
    if quota.rollover_max and (quota.period == "hour" or quota.refill is not None):
        raise ValueError("rollover_max: not with periods of an hour, nor with refill")
    _check_hours(quota, of)
    return quota


def _check_hours(quota: QuotaTerms, of: Literal["tier", "plan"]) -> None:
    """Usage is kept by hours in UTC, so that is where periods begin."""
    try:
        zone = ZoneInfo(quota.time_zone)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError("time_zone: there is no such zone") from None
    if quota.anniversary and (of == "tier" or quota.anchor is not None):
        raise ValueError("anniversary: of a plan, and without an anchor")
    if quota.anchor is not None:
        if quota.anchor.tzinfo is None:
            raise ValueError("anchor: an instant with its offset")
        if quota.anchor.astimezone(UTC).strftime("%M%S%f").strip("0"):
            raise ValueError("anchor: a period begins on a whole hour in UTC")
    for month in (1, 7):
        offset = datetime(2026, month, 1, tzinfo=zone).utcoffset()
        if offset is not None and offset.total_seconds() % _HOUR:
            raise ValueError("time_zone: a period begins on a whole hour in UTC, as usage is kept")


def _storable(config: Any) -> Any:
    try:
        text = msgspec.json.encode(config)
    except (UnicodeEncodeError, RecursionError, OverflowError):
        raise ValueError("a config is a JSON document in UTF-8") from None
    if len(text) > _MAX_CONFIG or b"\\u0000" in text:
        raise ValueError(f"a config has at most {_MAX_CONFIG} characters, and no NUL")
    return config


def _number(value: int | str) -> Decimal | None:
    text = str(value)
    if len(text) > _LONGEST or not _NUMBER.fullmatch(text):
        return None
    try:
        number = Decimal(text)
    except InvalidOperation:  # an exponent that nothing holds
        return None
    _, digits, exponent = number.as_tuple()
    return number if number >= 0 and len(digits) <= _MAX_DIGITS and exponent in _EXPONENTS else None


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
