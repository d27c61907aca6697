import random
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest

from billing_service.dashboard.board import Board, OpenSubscription, RowState, TenantBoard
from billing_service.dashboard.render import FRAGMENTS, Fragments
from billing_service.dashboard.stream import QUEUE_FRAMES, Hub
from billing_service.dashboard.view import TENANTS_SHOWN, Lag, build_view, compact, sparkline
from billing_service.domain.periods import Period
from billing_service.domain.plans import Plan
from billing_service.usage.records import Rollup
from tenantry import LocalDirectory
from tenantry.testing import TenantFactory

START = datetime(2026, 3, 1, tzinfo=UTC)
END = datetime(2026, 4, 1, tzinfo=UTC)
TENANT = UUID(int=1)


def record(version: int, count: int, total: str | None = None, *, hour: int = 0, tenant: UUID = TENANT) -> Rollup:
    return Rollup(
        tenant_id=tenant,
        meter="requests",
        meter_version=1,
        aggregation="count",
        granularity="hour",
        window_start=START + timedelta(hours=hour),
        group={},
        group_hash="00",
        count=Decimal(count),
        sum=None if total is None else Decimal(total),
        min=None,
        max=None,
        latest=None,
        integral=None,
        version=version,
    )


def board(*, row_limit: int = 100, complete: bool = True, **changes: Any) -> Board:
    return Board([TenantBoard(TENANT, START, END, **changes)], row_limit=row_limit, complete=complete)


def counted(shown: Board) -> tuple[Decimal, Decimal | None]:
    total = shown.tenants[TENANT].meters["requests"]
    return total.count, total.total


def test_absolute_records_in_any_order_and_number_give_the_last_state() -> None:
    records = [record(version, version * 10, str(version), hour=hour) for version in range(1, 6) for hour in range(20)]
    shuffled = records * 2
    random.Random(3).shuffle(shuffled)  # noqa: S311 - an order, not a secret
    shown = board()
    for each in shuffled:
        shown.apply(each, 0)
    assert counted(shown) == (Decimal(50 * 20), Decimal(5 * 20))
    assert not shown.needs_snapshot


def test_a_seeded_row_is_not_counted_again() -> None:
    shown = board()
    seen = record(4, 40)
    shown.seed_row(seen.key, RowState(4, Decimal(40), None))
    shown.apply(seen, 0)
    assert shown.tenants[TENANT].meters == {}
    shown.apply(record(5, 45), 0)
    assert counted(shown) == (Decimal(5), None)


def test_what_cannot_be_placed_asks_for_a_snapshot() -> None:
    forgotten = board(row_limit=2)
    for hour in range(3):
        forgotten.apply(record(1, 1, hour=hour), 0)
    assert len(forgotten.tenants[TENANT].meters) == 1
    forgotten.apply(record(2, 2, hour=0), 0)
    assert forgotten.needs_snapshot

    unknown = board()
    unknown.apply(record(1, 1, tenant=UUID(int=2)), 0)
    assert unknown.needs_snapshot

    next_period = board()
    next_period.apply(record(1, 1, hour=31 * 24), 0)
    assert next_period.needs_snapshot

    history = board()
    history.apply(record(1, 1, hour=-1), 0)
    assert not history.needs_snapshot


def test_amounts_are_what_an_invoice_would_say_now() -> None:
    charge = {"code": "calls", "meter": "requests", "price": {"model": "per_unit", "unit_amount": "0.5"}}
    plan = Plan.model_validate({"currencies": ["USD"], "charges": [charge]})
    shown = board(subscriptions=(OpenSubscription("pro", plan, "USD", Period(START, END, 31, 31), {}),))
    shown.apply(record(1, 3), 0)
    assert shown.rerate(10)
    assert shown.tenants[TENANT].amounts == {"USD": Decimal("1.50")}
    assert not shown.rerate(10)


def test_each_subscription_is_rated_by_its_own_period() -> None:
    charge = {"code": "calls", "meter": "requests", "price": {"model": "per_unit", "unit_amount": "1"}}
    plan = Plan.model_validate({"currencies": ["USD", "EUR"], "charges": [charge]})
    half = START + timedelta(days=15)
    shown = board(
        subscriptions=(
            OpenSubscription("whole", plan, "USD", Period(START, END, 31, 31), {}),
            OpenSubscription("later", plan, "EUR", Period(half, half + timedelta(days=10), 10, 10), {}),
        )
    )
    shown.apply(record(1, 3), 0)
    shown.apply(record(1, 4, hour=16 * 24), 0)
    shown.rerate(10)
    assert shown.tenants[TENANT].amounts == {"USD": Decimal(7), "EUR": Decimal(4)}


def test_what_is_taken_back_is_taken_off_and_is_no_rate() -> None:
    shown = board()
    shown.apply(record(1, 10, "100"), 5)
    shown.apply(record(2, 4, "40"), 7)
    assert counted(shown) == (Decimal(4), Decimal(40))
    shown.apply(record(3, 0), 8)
    assert counted(shown) == (Decimal(0), Decimal(0))
    assert sum(shown.counted_by_second(10)) == 10


def test_usage_before_bill_from_costs_nothing() -> None:
    priced = Plan.model_validate(
        {
            "currencies": ["USD"],
            "charges": [
                {"code": "calls", "meter": "requests", "price": {"model": "per_unit", "unit_amount": "1"}},
            ],
        }
    )
    seam = START + timedelta(hours=1)
    opened = OpenSubscription("standard", priced, "USD", Period(START, END, 31, 31), {}, seam)
    shown = board(subscriptions=(opened,))
    shown.apply(record(1, 900, hour=0), 0)
    shown.apply(record(1, 8, hour=1), 0)
    shown.rerate(10)
    assert shown.tenants[TENANT].amounts == {"USD": Decimal(8)}
    assert counted(shown)[0] == 908


def test_the_rate_is_by_second_and_forgets() -> None:
    shown = board()
    shown.apply(record(1, 10), 1000)
    shown.apply(record(2, 25), 1001)
    assert shown.counted_by_second(1002)[-2:] == [10, 15]
    assert sum(shown.counted_by_second(1300)) == 0


def test_a_view_of_ten_thousand_tenants_is_bounded(tenant_factory: TenantFactory) -> None:
    tenants = [tenant_factory(name=f"<b>{n}</b>") for n in range(10_000)]
    many = Board([TenantBoard(tenant.id, START, END) for tenant in tenants], row_limit=100_000, complete=True)
    for n, tenant in enumerate(tenants):
        many.apply(record(1, n, tenant=tenant.id), 5)
        many.tenants[tenant.id].amounts = {"USD": Decimal(n), "JPY": Decimal(1)}
    view = build_view(
        many, LocalDirectory.of(tenants), second=6, invoiced={}, invoices=[], lags=[Lag("x", None), Lag("y", 1234)]
    )
    assert (len(view.tenants), view.other_tenants) == (TENANTS_SHOWN, 10_000 - TENANTS_SHOWN)
    assert view.tenants[0].amount == "1 JPY + 9,999.00 USD"
    assert view.other_amount == f"9,950 JPY + {sum(range(9_950)):,}.00 USD"
    parts = Fragments().render(view)
    assert set(parts) == set(FRAGMENTS)
    assert sum(map(len, parts.values())) < 100_000
    assert "<b>9999" not in parts["tenants"]
    assert "&lt;b&gt;9999" in parts["tenants"]


@pytest.mark.parametrize(
    ("number", "text"),
    [("0", "0"), ("12.345", "12.35"), ("999", "999"), ("1234", "1.23k"), ("45600", "45.6k"), ("7890123", "7.89M")],
)
def test_compact_numbers(number: str, text: str) -> None:
    assert compact(Decimal(number)) == text


def test_a_sparkline_of_nothing_is_a_flat_line() -> None:
    line, area = sparkline([0, 0, 0])
    assert {point.split(",")[1] for point in line.split()} == {"46.0"}
    assert area.startswith("M0,48")


def test_a_slow_client_is_dropped_and_the_others_go_on() -> None:
    hub = Hub(max_clients=2)
    hub.publish(b"first")
    slow, quick = hub.join(), hub.join()
    assert hub.is_full
    for number in range(QUEUE_FRAMES + 1):
        hub.publish(b"%d" % number)
        while not quick.frames.empty():
            quick.frames.get_nowait()
    assert slow.closed.is_set()
    assert not quick.closed.is_set()
    assert len(hub) == 1
    hub.leave(slow)
    hub.leave(quick)
    assert len(hub) == 0
