"""Holds what the services say against what the oracle and the driver of live traffic say."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from rich.console import Console
from rich.table import Table

from tenantry_dev.oracle import ExpectedInvoice
from tenantry_dev.sample.api import Api
from tenantry_dev.sample.onboarding import SampleTenant

# Which meter counts what the oracle, or the driver, calls by this name.
_METERS = {
    ("sample-log", "requests"): "http-requests",
    ("sample-log", "bandwidth"): "http-bytes",
    ("sample-llm", "input"): "llm-input-tokens",
    ("sample-llm", "output"): "llm-output-tokens",
}
_LIVE_METERS = {
    "requests": "app-requests",
    "bytes_in": "app-bytes-in",
    "bytes_out": "app-bytes-out",
    "stored": "storage-bytes",
}
# Live events travel through a spool file and a shipper before they are counted.
_SETTLE_SECONDS = 30.0


@dataclass(frozen=True)
class Check:
    """One figure, as it should be and as it is. `group` is what the summary counts by."""

    group: str
    what: str
    expected: str
    actual: str

    @property
    def equal(self) -> bool:
        return self.expected == self.actual


def compare_invoices(
    expected: Iterable[ExpectedInvoice], invoices: Iterable[Mapping[str, Any]], tenants: Sequence[SampleTenant]
) -> list[Check]:
    """Every total, line and billed quantity; an invoice that is missing or too many is a difference as well."""
    slugs = {tenant.id: tenant.slug for tenant in tenants}
    wanted = {(item.tenant, item.month, item.plan): item for item in expected}
    found: dict[tuple[str, str, str], list[Mapping[str, Any]]] = {}
    for invoice in invoices:
        charges = {line["charge"] for line in invoice["lines"]}
        plan = "sample-log" if charges & {"requests", "bandwidth"} else "sample-llm"
        found.setdefault((slugs[invoice["tenant_id"]], invoice["period"]["from"][:7], plan), []).append(invoice)
    checks = []
    for key in sorted(wanted.keys() | found.keys()):
        name, actual = " ".join(key), found.get(key, [])
        want = wanted.get(key)
        checks.append(Check("invoices", name, "1" if want else "none", str(len(actual)) if actual else "none"))
        if want and len(actual) == 1:
            checks.extend(_compare_invoice(name, want, actual[0]))
    return checks


def _compare_invoice(name: str, want: ExpectedInvoice, invoice: Mapping[str, Any]) -> Iterable[Check]:
    amounts: Counter[str] = Counter()
    quantities = {}
    for line in invoice["lines"]:
        amounts[line["charge"]] += Decimal(line["amount"])  # type: ignore[assignment]  # a Counter adds what it is given
        quantities[line["charge"]] = line["quantity"]
    yield Check("states", f"{name} status", "final", invoice["status"])
    yield Check("totals", f"{name} total", _money(want.total), _money(invoice["total"]))
    for charge, amount in want.lines:
        yield Check("amounts of lines", f"{name} {charge}", _money(amount), _money(amounts[charge]))
    for charge, quantity in want.quantities:
        if (want.plan, charge) in _METERS:
            yield Check("billed quantities", f"{name} {charge}", _number(quantity), _number(quantities.get(charge)))


async def compare_usage(
    usage: Api, expected: Iterable[ExpectedInvoice], tenants: Sequence[SampleTenant]
) -> list[Check]:
    """What the usage service answers for each tenant, meter and month."""
    ids = {tenant.slug: tenant.id for tenant in tenants}
    questions = [
        (item, meter, quantity)
        for item in expected
        for charge, quantity in item.quantities
        if (meter := _METERS.get((item.plan, charge)))
    ]

    async def ask(item: ExpectedInvoice, meter: str, quantity: Decimal) -> Check:
        first = datetime.fromisoformat(f"{item.month}-01T00:00:00+00:00")
        after = (first + timedelta(days=32)).replace(day=1)
        answer = await query(usage, meter, ids[item.tenant], first, after, "month")
        return Check("usage queries", f"{item.tenant} {item.month} {meter}", _number(quantity), _number(answer))

    return list(await asyncio.gather(*(ask(*question) for question in questions)))


async def compare_live(
    usage: Api, live: Mapping[str, Counter[str]], tenants: Sequence[SampleTenant], moment: datetime
) -> list[Check]:
    """What live traffic was counted as, against what its driver saw; waits for events that are on their way."""
    deadline = time.monotonic() + _SETTLE_SECONDS
    while True:
        checks = [
            Check(
                "live traffic",
                f"{tenant.slug} {name}",
                _number(live[tenant.slug][name]),
                _number(await query(usage, meter, tenant.id, moment - timedelta(days=36525), moment, "month")),
            )
            for tenant in tenants
            for name, meter in _LIVE_METERS.items()
        ]
        if all(check.equal for check in checks) or time.monotonic() > deadline:
            return checks
        await asyncio.sleep(0.5)


async def query(usage: Api, meter: str, tenant_id: str, start: datetime, end: datetime, window: str) -> Decimal:
    """The sum of a count or sum meter over all windows of a range."""
    answer = await usage.get(
        f"/v1/meters/{meter}/query",
        tenant_id=tenant_id,
        window=window,
        **{"from": _text(start), "to": _text(end)},
    )
    return sum((Decimal(item["value"]) for item in answer["items"]), Decimal(0))


def show(console: Console, checks: Sequence[Check]) -> bool:
    """Prints what was compared, and every difference. Whether there is none."""
    for group in dict.fromkeys(check.group for check in checks):
        members = [check for check in checks if check.group == group]
        equal = sum(check.equal for check in members)
        mark = "[green]equal[/]" if equal == len(members) else "[red]DIFFERENT[/]"
        console.print(f"  {group:<18} {equal:>5} of {len(members):>5} {mark}")
    differences = [check for check in checks if not check.equal]
    if differences:
        table = Table("what", "expected", "actual", title="Differences")
        for check in differences:
            table.add_row(check.what, check.expected, check.actual)
        console.print(table)
    return bool(checks) and not differences


def _money(value: str | Decimal | int) -> str:
    """To the cent if it has no more; an amount with a fraction of a cent stays as it is, and differs."""
    amount = Decimal(value)
    cents = amount.quantize(Decimal("0.01"))
    return str(cents if cents == amount else amount)


def _number(value: str | Decimal | int | None) -> str:
    return "none" if value is None else f"{Decimal(value).normalize():f}"


def _text(moment: datetime) -> str:
    return moment.isoformat().replace("+00:00", "Z")
