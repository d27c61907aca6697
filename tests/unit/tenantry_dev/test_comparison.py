from __future__ import annotations

from copy import deepcopy
from decimal import Decimal
from typing import Any

import pytest
from rich.console import Console

from tenantry_dev.demo.comparison import compare_invoices, show
from tenantry_dev.oracle import ExpectedInvoice
from tenantry_dev.sample.onboarding import SampleTenant

TENANT = SampleTenant(3, "sample-03", "0198-id", "pool", "key")
EXPECTED = ExpectedInvoice(
    "sample-03",
    "sample-log",
    "2015-05",
    (("base", Decimal(1)), ("requests", Decimal(7)), ("bandwidth", Decimal(512))),
    (("base", Decimal("5.00")), ("requests", Decimal("0.09")), ("bandwidth", Decimal("0.00"))),
)
INVOICE: dict[str, Any] = {
    "tenant_id": TENANT.id,
    "period": {"from": "2015-05-01T00:00:00Z", "to": "2015-06-01T00:00:00Z"},
    "status": "final",
    "total": "5.09",
    "lines": [
        {"charge": "base", "quantity": None, "amount": "5.00"},
        {"charge": "requests", "quantity": "7", "amount": "0.09"},
        {"charge": "bandwidth", "quantity": "512.000", "amount": "0.00"},
    ],
}


def equal(*invoices: dict[str, Any]) -> bool:
    return show(Console(quiet=True), compare_invoices([EXPECTED], invoices, [TENANT]))


def test_the_same_invoice_is_equal() -> None:
    assert equal(INVOICE)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("total",), "5.10"),
        (("total",), "5.091"),
        (("status",), "draft"),
        (("period", "from"), "2015-06-01T00:00:00Z"),
        (("lines", 1, "amount"), "0.10"),
        (("lines", 1, "quantity"), "8"),
        (("lines", 1, "quantity"), None),
        (("lines", 1, "charge"), "other"),
    ],
)
def test_any_difference_shows(path: tuple[Any, ...], value: Any) -> None:
    changed = deepcopy(INVOICE)
    place: Any = changed
    for name in path[:-1]:
        place = place[name]
    place[path[-1]] = value

    assert not equal(changed)


def test_a_missing_invoice_shows() -> None:
    assert not equal()


def test_an_invoice_too_many_shows() -> None:
    assert not equal(INVOICE, INVOICE)
    assert not show(Console(quiet=True), compare_invoices([], [INVOICE], [TENANT]))


def test_comparing_nothing_is_no_success() -> None:
    assert not show(Console(quiet=True), [])
