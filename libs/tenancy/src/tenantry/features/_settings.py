"""The namespace `features`: what layers say about flags, for good or until a moment."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

import msgspec

from tenantry.features._flags import Choice

FEATURES: Final = "features"


class Setting(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A choice that ends: `{"value": true, "expires_at": "2027-01-01T00:00:00Z"}`."""

    value: bool | str
    expires_at: datetime | None = None


def parse_setting(raw: object) -> Setting:
    """What a layer says about one flag: a choice, or a `Setting`. Raises ValueError with the reason."""
    if isinstance(raw, bool | str):
        return Setting(raw)
    try:
        setting = msgspec.convert(raw, Setting)
    except msgspec.ValidationError as error:
        raise ValueError(str(error)) from None
    if setting.expires_at is not None and setting.expires_at.tzinfo is None:
        raise ValueError("expires_at needs its offset from UTC")
    return setting


def active_choices(document: Mapping[str, Any], now: datetime) -> tuple[dict[str, Choice], datetime | None]:
    """What a layer says about flags at `now`, and when the first of it ends. What cannot be read says nothing."""
    choices: dict[str, Choice] = {}
    first_end = None
    for name, raw in document.items():
        try:
            setting = parse_setting(raw)
        except ValueError:
            continue
        if setting.expires_at is not None:
            if setting.expires_at <= now:
                continue
            first_end = min(first_end or setting.expires_at, setting.expires_at)
        choices[name] = setting.value
    return choices, first_end
