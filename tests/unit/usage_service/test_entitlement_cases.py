"""Worked numbers of OpenMeter's credit engine and entitlements, and of Lago's prepaid balances."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import pairwise
from typing import Any

import pytest
from worked_cases import cases, needs_cases, only

from usage_service.domain.entitlement_burndown import BurnDown, Reset, Snapshot, Terms, boundaries, burn_down, opening
from usage_service.domain.entitlement_periods import Cycle, Interval
from usage_service.domain.entitlements import Course, values_of
from usage_service.domain.errors import InvalidGrant
from usage_service.domain.grants import ZERO, Grant, burn_order
from usage_service.domain.quotas import Quota

START = datetime(2024, 1, 1, tzinfo=UTC)
INTERVALS = {"H": "hour", "D": "day", "W": "week", "M": "month", "Y": "year"}
SHORT = {"d": "days", "h": "hours", "m": "minutes", "s": "seconds"}

GIVEN = (
    *("aggregation", "grants", "start", "until", "usage", "resets", "preserve_overage"),
    *("starting_balances", "starting_overage"),
)

pytestmark = needs_cases


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
    return sum(inside, ZERO)


def terms(given: dict[str, Any]) -> Terms:
    preserves = given.get("preserve_overage", False)
    return Terms(
        grants=[grant(each, number) for number, each in enumerate(given["grants"])],
        resets=[Reset(moment(each), preserves_overage=preserves) for each in given.get("resets", [])],
    )


def run(given: dict[str, Any], until: datetime | None = None) -> BurnDown:
    """The whole of a case, or what comes before an instant."""
    whole = terms(given)
    start, until = moment(given["start"]), until or moment(given["until"])
    balances = given.get("starting_balances")
    snapshot = (
        opening(whole.grants, start)
        if balances is None
        else Snapshot(
            at=start,
            left={name: Decimal(balance) for name, balance in balances.items()},
            owed=Decimal(given.get("starting_overage", "0")),
        )
    )
    spans = pairwise(boundaries(whole, start, until))
    return burn_down(whole, snapshot, until, [usage_of(given, *span) for span in spans])


@pytest.mark.parametrize("case", cases("openmeter", "grant_burndown", "grant_total", "grant_reset"))
def test_burn_down(case: dict[str, Any]) -> None:
    given, expect = case["given"], case["expect"]
    only(given, *GIVEN)
    if given.get("aggregation", "SUM") not in {"SUM", "COUNT"}:
        pytest.skip(
            "decision 45: a segment uses by how much it moves the figure of the period, so that nothing is used twice;"
            " theirs uses the figure of each segment"
        )
    if "error" in expect:
        given = {"until": "2024-01-06T00:00:00Z", "start": START.isoformat(), "grants": [], **given}
        given["grants"] = [
            {"id": each, "effective_at": START.isoformat()} if isinstance(each, str) else each
            for each in given["grants"]
        ]
        with pytest.raises(InvalidGrant):
            run(given)
        return
    burnt = run(given)
    closing, account = burnt.closing, burnt.account
    spans = list(pairwise(boundaries(terms(given), moment(given["start"]), moment(given["until"]))))
    begun = [run(given, start).carried for start, _ in spans]
    seen = {
        "balances": {name: closing.left[name] for name in expect.get("balances", {})},
        "balance": closing.standing.balance,
        "overage": closing.standing.overage,
        "segments": len(spans),
        "segment_usage": [usage_of(given, *span) for span in spans],
        "total_grant_usage": account.used,
        "total_available": account.used + closing.standing.balance,
        "segment_balance_at_start": [each.standing.balance for each in begun],
        "grant_1_at_segment_start": [each.left.get("grant-1") for each in begun],
    }
    only(expect, *seen)
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


@pytest.mark.parametrize("case", cases("openmeter", "grant_active", "grant_order"))
def test_grants(case: dict[str, Any]) -> None:
    given, expect = case["given"], case["expect"]
    if case["area"] == "grant_order":
        only(given, "grants")
        only(expect, "order")
        assert [each.id for each in burn_order(grant(each) for each in given["grants"])] == expect["order"]
    else:
        only(given, "grant", "at")
        only(expect, "active")
        assert grant(given["grant"]).active_at(moment(given["at"])) is expect["active"]


@pytest.mark.parametrize("case", cases("openmeter", "entitlement_balance", "entitlement_reset"))
def test_entitlement(case: dict[str, Any]) -> None:
    """What is asked at a reset is the state after it; a snapshot stands for all that came before it."""
    given, expect = case["given"], case["expect"]
    only(given, "query_at", "reset_at", "start", "snapshot", "usage_after_snapshot", *GIVEN, "grant", "then_grant")
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
    carried, seen = burnt.carried, burnt.carried.standing
    values = {
        "usage_in_period": seen.usage,
        "balance": seen.balance,
        "overage": seen.overage,
        "total_available": seen.available,
        "has_access": has_access(burnt, moment(given.get("query_at", given.get("reset_at")))),
        "balance_right_after_reset": seen.balance - carried.left.get("then", ZERO),
        "balance_with_grant": seen.balance,
    }
    only(expect, *values)
    assert {name: values[name] for name in expect} == numbers(expect)


def has_access(burnt: BurnDown, until: datetime) -> bool:
    """To a hard quota that gives nothing but what its grants give."""
    rhythm = Cycle(Interval.DAY, START)
    periods = [rhythm.period_at(until)] * (len(burnt.ended) + 1)
    course = Course(Terms(grants=[]), burnt.closing, until, [], periods)
    return values_of(Quota(cycle=rhythm, limits=[]), course, burnt)[-1].has_access


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


@pytest.mark.parametrize("case", cases("lago", "prepaid"))
def test_prepaid(case: dict[str, Any]) -> None:
    """Only the balance is of this service: what is due is billing's."""
    given, expect = case["given"], case["expect"]
    if "wallet_cents" not in given or "wallet_cents" not in expect:
        pytest.skip("not about a balance")
    due = Decimal(expect["fees_amount_cents"]) + Decimal(expect["taxes_amount_cents"])
    wallet = grant({"id": "wallet", "amount": given["wallet_cents"], "effective_at": "T"})
    burnt = burn_down(Terms(grants=[wallet]), opening([wallet], START), START + timedelta(hours=1), [due])
    assert burnt.closing.standing.balance == Decimal(expect["wallet_cents"])
    assert burnt.account.used == Decimal(expect["prepaid_cents"])
    assert burnt.closing.standing.overage == Decimal(expect["total_cents"])
