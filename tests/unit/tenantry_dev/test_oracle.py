from __future__ import annotations

from collections import Counter
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing_service.domain.plans import Plan
from billing_service.domain.prices import price_quantity
from tenantry_dev.oracle import expected_invoices
from tenantry_dev.oracle.expected import _llm_lines, _log_lines
from tenantry_dev.sample.catalogue import METERS, PLANS

LINE = '192.0.2.7 - - [{}/2025:23:30:00 +0000] "GET / HTTP/1.1" 200 {} "-" "curl"\n'

quantities = st.one_of(st.sampled_from([0, 1, 499, 500, 501, 1000, 1001, 250_000, 1_000_000]), st.integers(0, 10**12))


@pytest.mark.parametrize("code", PLANS)
def test_plans_charge_only_for_meters_that_exist(code: str) -> None:
    plan = Plan.model_validate(PLANS[code])

    assert plan.meters <= METERS.keys()
    assert plan.skip_without_usage


@given(first=quantities, second=quantities)
def test_the_oracle_and_the_price_documents_state_the_same_prices(first: int, second: int) -> None:
    stated = {
        "sample-log": _log_lines(Counter(requests=first, bytes=second)),
        "sample-llm": _llm_lines(Counter(input=first, output=second)),
    }
    for code, lines in stated.items():
        charges = {charge.code: charge for charge in Plan.model_validate(PLANS[code]).charges}
        for name, quantity, amount in lines:
            parts = price_quantity(charges[name].price_in("USD"), quantity)
            assert sum(part.amount for part in parts) == amount, (code, name)


def test_months_with_events_and_no_others_are_billed(tmp_path: Path) -> None:
    path = tmp_path / "access.log"
    path.write_text(LINE.format("31/Mar", 10) + LINE.format("01/May", 20) + LINE.format("02/May", 30))

    invoices = expected_invoices(path, None)

    assert [(invoice.month, dict(invoice.quantities)["bandwidth"]) for invoice in invoices] == [
        ("2025-03", Decimal(10)),
        ("2025-05", Decimal(50)),
    ]


def test_lines_are_rounded_alone_and_half_up(tmp_path: Path) -> None:
    path = tmp_path / "llm.csv"
    # 44 output tokens cost 0.0055 and 500 input tokens 0.015: half a cent goes up.
    path.write_text("TIMESTAMP,ContextTokens,GeneratedTokens\n2025-01-05 00:00:00,500,44\n")

    (invoice,) = expected_invoices(None, path)

    assert dict(invoice.lines) == {"base": Decimal("20.00"), "input": Decimal("0.02"), "output": Decimal("0.01")}
    assert invoice.total == Decimal("20.03")
    assert Decimal("0.015").quantize(Decimal("0.01"), ROUND_HALF_UP) == Decimal("0.02")
