"""Amounts of quotas are the same numbers wherever they are said: put for a tenant, by its tier, or by its plan."""

import pytest
from pydantic import ValidationError

from tenantry.entitlements import InvalidEntitlements, parse_entitlements
from usage_service.entitlements.schemas import QuotaIn


@pytest.mark.parametrize("field", ["limit", "rollover_max"])
@pytest.mark.parametrize(
    "number",
    [
        *(0, 7, 10**37, 10**38, -1, True, 1.5, "0", "-0", "-1", "12.50", "1e3", "1E+3"),
        *("1e-18", "1e-19", "1e20", "1e21", "1e999999999999999999999"),
        *("9" * 20, "9" * 38, "9" * 39, f"0.{'1' * 18}", f"0.{'1' * 19}"),
        *(f"{'9' * 30}.{'9' * 8}", f"{'9' * 31}.{'9' * 8}", "1" * 5_000),
        *("", " 1", "1 ", "+1", "007", "1_000", "0x10", ".5", "5.", "1,5", "NaN", "Infinity", "\u0663", [], {}),
    ],
)
def test_an_amount_is_taken_by_all_or_by_none(field: str, number: object) -> None:
    document = {"limit": "10", field: number}
    try:
        put = QuotaIn.model_validate(document).terms
    except ValidationError:
        put = None
    for of in ("tier", "plan"):
        try:
            given = parse_entitlements({"calls": document}, of=of)["calls"].quota
        except InvalidEntitlements:
            given = None
        assert (put is None) == (given is None), of
        if put is not None and given is not None:
            assert getattr(put, field) == getattr(given, field)
