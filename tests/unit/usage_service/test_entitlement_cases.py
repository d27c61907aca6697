"""Worked numbers of OpenMeter's credit engine and entitlements, and of Lago's prepaid balances."""

from __future__ import annotations

import json
import os
import re
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from usage_service.domain.entitlement_burndown import BurnDown, Snapshot, Terms, boundaries, burn_down, opening
from usage_service.domain.entitlement_periods import Cycle, Interval
from usage_service.domain.errors import InvalidGrant
from usage_service.domain.grants import ZERO, Grant, burn_order

REPOSITORY = Path(__file__).resolve().parents[3]
FOLDER = Path(os.environ.get("TENANTRY_CASES", REPOSITORY.parent / "shared" / "cases"))
START = datetime(2024, 1, 1, tzinfo=UTC)
INTERVALS = {"H": "hour", "D": "day", "W": "week", "M": "month", "Y": "year"}
SHORT = {"d": "days", "h": "hours", "m": "minutes", "s": "seconds"}

pytestmark = pytest.mark.skipif(not FOLDER.is_dir(), reason=f"no shared cases in {FOLDER} (TENANTRY_CASES)")


def cases(*areas: str, system: str = "openmeter") -> list[Any]:
    file = FOLDER / f"{system}.json"
    found = json.loads(file.read_text()) if file.is_file() else []
    return [pytest.param(case, id=case["name"]) for case in found if case["area"] in areas]


def moment(text: str) -> datetime:
    """An instant, or one relative to the start as in `T+1h1m`."""
    if not text.startswith("T"):
        return datetime.fromisoformat(text)
    distance = timedelta(**{SHORT[unit]: int(number) for number, unit in re.findall(r"(\d+)([dhms])", text)})
    return START - distance if text.startswith("T-") else START + distance


def cycle(given: dict[str, Any]) -> Cycle:
    """A rhythm as in `P1W` or `PT6H`."""
    parts = re.fullmatch(r"PT?(\d+)([HDWMY])", given["interval"])
    assert parts is not None, given
    return Cycle(Interval(INTERVALS[parts[2]]), moment(given["anchor"]), every=int(parts[1]))


def grant(given: dict[str, Any], number: int = 0) -> Grant:
    ends = {name: moment(given[name]) for name in ("expires_at", "voided_at") if given.get(name)}
    if given.get("deleted_at"):
        ends["voided_at"] = min(moment(given["deleted_at"]), ends.get("voided_at", moment(given["deleted_at"])))
    effective = moment(given.get("effective_at", "T"))
    recurrence = given.get("recurrence")
    return Grant(
        id=given.get("id", f"g{number}"),
        amount=Decimal(given.get("amount", "100")),
        effective_at=effective,
        created_at=moment(given["created_at"]) if given.get("created_at") else effective,
        priority=given.get("priority", 1),
        # Their grants roll nothing over unless they say so.
        rollover_min=Decimal(given.get("min_rollover", "0")),
        rollover_max=Decimal(given.get("max_rollover", "0")),
        recurrence=None if recurrence is None else cycle(recurrence),
        **ends,
    )


def usage_of(given: dict[str, Any], start: datetime, end: datetime) -> Decimal:
    inside = [Decimal(each["value"]) for each in given.get("usage", []) if start <= moment(each["time"]) < end]
    if given.get("aggregation") == "LATEST":
        return inside[-1] if inside else ZERO
    return sum(inside, ZERO)


def run(given: dict[str, Any]) -> BurnDown:
    grants = [grant(each, number) for number, each in enumerate(given["grants"])]
    start, until = moment(given["start"]), moment(given["until"])
    terms = Terms(
        grants=grants,
        resets=[moment(each) for each in given.get("resets", [])],
        preserve_overage=given.get("preserve_overage", False),
    )
    balances = given.get("starting_balances")
    snapshot = (
        opening(grants, start)
        if balances is None
        else Snapshot(
            at=start,
            left={name: Decimal(balance) for name, balance in balances.items()},
            owed=Decimal(given.get("starting_overage", "0")),
        )
    )
    spans = pairwise(boundaries(terms, start, until))
    return burn_down(terms, snapshot, until, [usage_of(given, *span) for span in spans])


@pytest.mark.parametrize("case", cases("grant_burndown", "grant_total", "grant_reset"))
def test_burn_down(case: dict[str, Any]) -> None:
    given, expect = case["given"], case["expect"]
    if "error" in expect:
        given = {"until": "2024-01-06T00:00:00Z", "start": START.isoformat(), "grants": [], **given}
        given["grants"] = [
            {"id": each, "effective_at": START.isoformat()} if isinstance(each, str) else each
            for each in given["grants"]
        ]
        with pytest.raises(InvalidGrant):
            run(given)
        return
    known = {"balances", "balance", "overage", "segments", "segment_usage", "total_grant_usage", "total_available"}
    known |= {"segment_balance_at_start", "grant_1_at_segment_start"}
    if unknown := expect.keys() - known:
        pytest.skip(f"expects {sorted(unknown)}")
    burnt = run(given)
    closing, account = burnt.closing, burnt.account
    seen = {
        "balances": {name: closing.left[name] for name in expect.get("balances", {})},
        "balance": closing.balance,
        "overage": closing.overage,
        "segments": len(burnt.segments),
        "segment_usage": [each.usage for each in burnt.segments],
        "total_grant_usage": account.used,
        "total_available": account.used + closing.balance,
        "segment_balance_at_start": [sum(each.left_at_start.values()) for each in burnt.segments],
        "grant_1_at_segment_start": [each.left_at_start["grant-1"] for each in burnt.segments]
        if "grant_1_at_segment_start" in expect
        else None,
    }
    assert {name: seen[name] for name in expect} == {name: numbers(value) for name, value in expect.items()}


def numbers(value: Any) -> Any:
    match value:
        case dict():
            return {name: numbers(each) for name, each in value.items()}
        case list():
            return [numbers(each) for each in value]
        case str():
            return Decimal(value)
    return value


@pytest.mark.parametrize("case", cases("grant_active"))
def test_active(case: dict[str, Any]) -> None:
    given = case["given"]
    assert grant(given["grant"]).active_at(moment(given["at"])) is case["expect"]["active"]


@pytest.mark.parametrize("case", cases("grant_order"))
def test_order(case: dict[str, Any]) -> None:
    given, expect = case["given"], case["expect"]
    if "grants" not in given or "order" not in expect:
        pytest.skip("another shape than grants and their order")
    assert [each.id for each in burn_order(grant(each) for each in given["grants"])] == expect["order"]


@pytest.mark.parametrize("case", cases("entitlement_balance", "entitlement_reset"))
def test_entitlement(case: dict[str, Any]) -> None:
    """What is asked at a reset is the state after it; a snapshot stands for all that came before it."""
    given, expect = case["given"], case["expect"]
    if "query_at" not in given and "reset_at" not in given:
        pytest.skip("another shape than a query or a reset")
    if "snapshot" in given:
        burnt = resumed(given)
    else:
        grants = given.get("grants", [{"amount": given["grant"]}] if "grant" in given else [])
        later = [{"id": "then", **given["then_grant"]}] if "then_grant" in given else []
        resets = given.get("resets", []) + ([given["reset_at"]] if "reset_at" in given else [])
        burnt = run(
            {
                "preserve_overage": given.get("preserve_overage", False),
                "grants": [*grants, *later],
                "start": given.get("start", "T"),
                "until": given.get("query_at", given.get("reset_at")),
                "resets": resets,
                "usage": [{"time": each["at"], "value": each["value"]} for each in given.get("usage", [])],
            }
        )
    seen = burnt.carried
    values = {
        "usage_in_period": seen.usage,
        "balance": seen.balance,
        "overage": seen.overage,
        "total_available": seen.available,
        "has_access": seen.balance > 0,
        "balance_right_after_reset": seen.balance - seen.left.get("then", ZERO),
        "balance_with_grant": seen.balance,
    }
    if unknown := expect.keys() - values.keys():
        pytest.skip(f"expects {sorted(unknown)}")
    assert {name: values[name] for name in expect} == numbers(expect)


def resumed(given: dict[str, Any]) -> BurnDown:
    """One grant, from a snapshot on."""
    taken = given["snapshot"]
    whole = grant({"id": "g", "amount": given["grant"], "effective_at": "T"})
    snapshot = Snapshot(
        at=moment(taken["at"]),
        left={"g": Decimal(taken["balance"])},
        usage=Decimal(taken["usage"]),
        owed=Decimal(taken.get("overage", "0")),
    )
    usage = [Decimal(given.get("usage_after_snapshot", "0"))]
    return burn_down(Terms(grants=[whole]), snapshot, moment(given["query_at"]), usage)


@pytest.mark.parametrize("case", cases("prepaid", system="lago"))
def test_prepaid(case: dict[str, Any]) -> None:
    """Only the balance is of this service: what is due is billing's."""
    given, expect = case["given"], case["expect"]
    if "wallet_cents" not in given or "wallet_cents" not in expect:
        pytest.skip("not about a balance")
    due = Decimal(expect["fees_amount_cents"]) + Decimal(expect["taxes_amount_cents"])
    wallet = grant({"id": "wallet", "amount": given["wallet_cents"], "effective_at": "T"})
    burnt = burn_down(Terms(grants=[wallet]), opening([wallet], START), START + timedelta(hours=1), [due])
    assert burnt.closing.balance == Decimal(expect["wallet_cents"])
    assert burnt.account.used == Decimal(expect["prepaid_cents"])
    assert burnt.closing.overage == Decimal(expect["total_cents"])
