"""What layers may say about flags: the namespace `features`, beside its schema."""

from collections.abc import Collection, Mapping
from typing import Any

from sqlalchemy.ext.asyncio import AsyncSession

from tenant_service.features.repository import flags_named
from tenantry import FieldError, PermissionDenied
from tenantry.features import parse_setting


class FlagOfOperators(PermissionDenied):
    """The flag is not for tenants to set."""

    type = "operator-only"
    title = "Only operators may set this flag"


async def check_settings(
    session: AsyncSession, document: Mapping[str, Any], changed: Collection[str], *, is_operator: bool
) -> list[FieldError]:
    """What is wrong with what a layer says about flags, `changed` among them.

    Raises `FlagOfOperators` where one who is no operator changes a flag that only operators may set.
    """
    flags = await flags_named(session, {*document, *changed})
    if not is_operator:
        for name in sorted(changed):
            if name in flags and flags[name].writable_by != "tenant":
                raise FlagOfOperators(f"The flag {name} is set by operators alone")
    faults: list[FieldError] = []
    for name, raw in document.items():
        if name not in flags:
            faults.append({"loc": [name], "msg": "there is no such flag"})
            continue
        try:
            setting = parse_setting(raw)
        except ValueError as error:
            faults.append({"loc": [name], "msg": str(error)})
            continue
        if flags[name].variant_of(setting.value) is None:
            faults.append({"loc": [name], "msg": f"is not one of {', '.join(sorted(flags[name].variants))}"})
    return faults
