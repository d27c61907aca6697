"""Prices the usage of a trace: the two sample plans in plain arithmetic."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path

from tenantry_dev.oracle.quantities import Usage, llm_usage, log_usage

CENT = Decimal("0.01")


@dataclass(frozen=True, order=True)
class ExpectedInvoice:
    """One invoice: tenant "sample-00" to "sample-11", month "2015-05", line amounts by charge, in dollars."""

    tenant: str
    plan: str
    month: str
    quantities: tuple[tuple[str, Decimal], ...]
    lines: tuple[tuple[str, Decimal], ...]

    @property
    def total(self) -> Decimal:
        return sum((amount for _, amount in self.lines), Decimal(0))


def expected_invoices(log: Path | None, llm: Path | None) -> list[ExpectedInvoice]:
    """One for every tenant, trace and month that holds at least one readable line."""
    invoices: list[ExpectedInvoice] = []
    if log is not None:
        for (tenant, month), usage in log_usage(log).items():
            invoices.append(_invoice(tenant, "sample-log", month, _log_lines(usage)))
    if llm is not None:
        for (tenant, month), usage in llm_usage(llm).items():
            invoices.append(_invoice(tenant, "sample-llm", month, _llm_lines(usage)))
    return sorted(invoices)


Line = tuple[str, Decimal, Decimal]


def _log_lines(usage: Usage) -> Iterator[Line]:
    yield "base", Decimal(1), Decimal("5.00")

    requests = Decimal(usage["requests"])
    amount = min(requests, Decimal(500)) * Decimal("0.0125")
    if requests > 500:
        amount += Decimal("1.50") + (min(requests, Decimal(1000)) - 500) * Decimal("0.0085")
    if requests > 1000:
        amount += (requests - 1000) * Decimal("0.0045")
    yield "requests", requests, amount

    yield "bandwidth", Decimal(usage["bytes"]), usage["bytes"] * Decimal("0.000000085")


def _llm_lines(usage: Usage) -> Iterator[Line]:
    yield "base", Decimal(1), Decimal("20.00")

    tokens = Decimal(usage["input"])
    amount = min(tokens, Decimal(250_000)) * Decimal("0.00003")
    if tokens > 250_000:
        amount += (min(tokens, Decimal(1_000_000)) - 250_000) * Decimal("0.0000225")
    if tokens > 1_000_000:
        amount += (tokens - 1_000_000) * Decimal("0.0000175")
    yield "input", tokens, amount

    yield "output", Decimal(usage["output"]), usage["output"] * Decimal("0.000125")


def _invoice(tenant: int, plan: str, month: str, lines: Iterator[Line]) -> ExpectedInvoice:
    priced = list(lines)
    return ExpectedInvoice(
        f"sample-{tenant:02}",
        plan,
        month,
        tuple((charge, quantity) for charge, quantity, _ in priced),
        # Amounts are never negative here, so half up is half away from zero.
        tuple((charge, amount.quantize(CENT, ROUND_HALF_UP)) for charge, _, amount in priced),
    )
