"""Worked numbers of other billing systems, where their case lies inside the models of prices this service has."""

import json
import os
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter

from billing_service.domain.money import allocate, round_amount
from billing_service.domain.prices import Price
from billing_service.domain.rating import preview

REPOSITORY = Path(__file__).resolve().parents[3]
FOLDER = Path(os.environ.get("TENANTRY_CASES", REPOSITORY.parent / "shared" / "cases"))
PRICE: TypeAdapter[Price] = TypeAdapter(Price)

pytestmark = pytest.mark.skipif(not FOLDER.is_dir(), reason=f"no shared cases in {FOLDER} (TENANTRY_CASES)")


def cases(name: str, *areas: str) -> list[Any]:
    file = FOLDER / f"{name}.json"
    found = json.loads(file.read_text()) if file.is_file() else []
    return [pytest.param(case, id=case["name"]) for case in found if case["area"] in areas]


def graduated_from_lago(tiers: list[dict[str, Any]]) -> dict[str, Any]:
    """Only upper bounds count: inclusive ranges of whole units (0-10, 11-20) meet at the lower one's end."""
    return {
        "model": "graduated",
        "bill_zero": True,
        "tiers": [
            {
                "up_to": None if (bound := tier.get("to", tier.get("up_to"))) is None else str(bound),
                "unit_amount": tier.get("unit", "0"),
                "flat_amount": tier.get("flat", "0"),
            }
            for tier in tiers
        ],
    }


@pytest.mark.parametrize("case", cases("lago", "charge.graduated", "fx.charge.slab"))
def test_graduated(case: dict[str, Any]) -> None:
    given = case["given"]
    if "tiers" not in given:
        pytest.skip("a part of a tier, not a price")
    price = PRICE.validate_python(graduated_from_lago(given["tiers"]))
    assert preview(price, given["money"]["currency"], Decimal(given["units"])).exact_amount == Decimal(
        case["expect"]["amount"]
    )


@pytest.mark.parametrize("case", cases("lago", "charge.standard", "fx.charge.flat"))
def test_per_unit(case: dict[str, Any]) -> None:
    given = case["given"]
    price = PRICE.validate_python({"model": "per_unit", "unit_amount": given["unit_price"]})
    assert preview(price, given["money"]["currency"], Decimal(given["units"])).exact_amount == Decimal(
        case["expect"]["amount"]
    )


@pytest.mark.parametrize("case", cases("lago", "fx.rounding.currency"))
def test_currency_rounding(case: dict[str, Any]) -> None:
    given = case["given"]
    assert str(round_amount(Decimal(given["amount"]), given["money"]["currency"])) == case["expect"]["rounded"]


@pytest.mark.parametrize("case", cases("openmeter", "price_unit", "price_flat", "price_graduated"))
def test_whole_period_lines(case: dict[str, Any]) -> None:
    given = case["given"]
    if given["line"] == "mid" or given.get("pre_line_quantity", "0") != "0" or "percentage_discount" in given:
        pytest.skip("billing a part of a period, or a discount")
    document = dict(given["price"])
    match document.pop("type"):
        case "unit":
            document |= {"model": "per_unit", "unit_amount": document.pop("amount")}
        case "flat":
            document = {"model": "flat", "amount": document["amount"]}
        case _:
            names = {"up_to": "up_to", "flat": "flat_amount", "unit": "unit_amount"}
            tiers = [{names[key]: value for key, value in tier.items()} for tier in document["tiers"]]
            document |= {"model": "graduated", "bill_zero": False, "tiers": tiers}
    priced = preview(PRICE.validate_python(document), given["currency"], Decimal(given["quantity"]))
    assert priced.amount == Decimal(case["expect"]["total"])


@pytest.mark.parametrize("case", cases("openmeter", "allocation"))
def test_allocation(case: dict[str, Any]) -> None:
    given = case["given"]
    names = [name for name, _ in given["weights"]]
    parts = allocate(Decimal(given["amount"]), [Decimal(weight) for _, weight in given["weights"]], given["currency"])
    assert dict(zip(names, parts, strict=True)) == {
        name: Decimal(amount) for name, amount in case["expect"]["amounts"].items()
    }
