"""What the console shows of the board: bounded lists of text and coordinates, ready for the template."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal
from typing import Final

from billing_service.dashboard.board import Board, TenantBoard
from billing_service.dashboard.repository import ShownInvoice
from billing_service.domain.money import plain
from billing_service.domain.rating import in_minor_units
from tenantry import Tenant, TenantDirectory

TENANTS_SHOWN: Final = 50
USAGE_SHOWN: Final = 8
INVOICES_SHOWN: Final = 8
METERS_SHOWN: Final = 4

SPARK_WIDTH: Final = 240
SPARK_HEIGHT: Final = 48

_UNITS: Final = ((Decimal(10) ** 12, "T"), (Decimal(10) ** 9, "G"), (Decimal(10) ** 6, "M"), (Decimal(10) ** 3, "k"))


@dataclass(frozen=True, slots=True)
class Lag:
    """How many records a stage has not read yet; None where nobody knows."""

    stage: str
    records: int | None


@dataclass(frozen=True, slots=True)
class Revenue:
    currency: str
    open: str
    invoiced: str
    invoices: int


@dataclass(frozen=True, slots=True)
class MeterCell:
    meter: str
    short: str
    exact: str


@dataclass(frozen=True, slots=True)
class TenantRow:
    name: str
    slug: str
    status: str
    isolation: str
    plan: str
    period: str
    meters: tuple[MeterCell, ...]
    more_meters: int
    amount: str
    bar: int


@dataclass(frozen=True, slots=True)
class UsageBar:
    name: str
    meter: str
    short: str
    exact: str
    bar: int


@dataclass(frozen=True, slots=True)
class InvoiceRow:
    number: str
    tenant: str
    period: str
    amount: str


@dataclass(frozen=True, slots=True)
class View:
    tenants: tuple[TenantRow, ...]
    tenants_total: int
    other_tenants: int
    other_amount: str
    rate_now: str
    rate_peak: str
    spark_line: str
    spark_area: str
    top_usage: tuple[UsageBar, ...]
    other_usage: int
    revenue: tuple[Revenue, ...]
    invoices: tuple[InvoiceRow, ...]
    lags: tuple[Lag, ...]


def build_view(
    board: Board,
    directory: TenantDirectory,
    *,
    second: int,
    invoiced: Mapping[str, tuple[int, Decimal]],
    invoices: Sequence[ShownInvoice],
    lags: Sequence[Lag],
) -> View:
    """The view of a moment. Its size does not grow with the number of tenants: the rest is summed up as other."""
    ranked = sorted(board.tenants.values(), key=lambda each: (-sum(each.amounts.values()), str(each.tenant_id)))
    shown = ranked[:TENANTS_SHOWN]
    greatest = max((sum(each.amounts.values(), Decimal(0)) for each in shown), default=Decimal(0))
    series = board.counted_by_second(second)
    bars, other_usage = _top_usage(ranked, directory)
    line, area = sparkline(series)
    return View(
        tenants=tuple(_tenant_row(each, directory.get(each.tenant_id), greatest) for each in shown),
        tenants_total=len(ranked),
        other_tenants=len(ranked) - len(shown),
        other_amount=_money(_summed(ranked[TENANTS_SHOWN:])),
        rate_now=compact(Decimal(sum(series[-5:])) / 5),
        rate_peak=compact(Decimal(max(series))),
        spark_line=line,
        spark_area=area,
        top_usage=bars,
        other_usage=other_usage,
        revenue=_revenue(_summed(ranked), invoiced),
        invoices=tuple(_invoice_row(invoice, directory.get(invoice.tenant_id)) for invoice in invoices),
        lags=tuple(lags),
    )


def compact(number: Decimal) -> str:
    """Three significant digits and a unit: "1.23M", "45.6k", "789"."""
    for size, unit in _UNITS:
        if abs(number) >= size:
            scaled = number / size
            places = 2 if abs(scaled) < 10 else 1 if abs(scaled) < 100 else 0
            return f"{scaled:.{places}f}{unit}"
    return plain(number.quantize(Decimal("0.01"), ROUND_HALF_UP))


def grouped(number: Decimal) -> str:
    """All digits, in groups of three."""
    return f"{Decimal(plain(number)):,f}"


def sparkline(series: Sequence[int]) -> tuple[str, str]:
    """Points of a line over `series`, and the path of the area below it, in a box of SPARK_WIDTH by SPARK_HEIGHT."""
    peak = max(1, *series)
    step = SPARK_WIDTH / max(1, len(series) - 1)
    points = [
        f"{index * step:.1f},{SPARK_HEIGHT - 2 - value / peak * (SPARK_HEIGHT - 6):.1f}"
        for index, value in enumerate(series)
    ]
    line = " ".join(points)
    return line, f"M0,{SPARK_HEIGHT} L{' L'.join(points)} L{SPARK_WIDTH},{SPARK_HEIGHT} Z"


def _tenant_row(each: TenantBoard, tenant: Tenant | None, greatest: Decimal) -> TenantRow:
    meters = sorted(each.meters.items(), key=lambda item: (-item[1].count, item[0]))
    amount = sum(each.amounts.values(), Decimal(0))
    return TenantRow(
        name=tenant.name if tenant else str(each.tenant_id),
        slug=tenant.slug if tenant else "",
        status=tenant.status.value if tenant else "unknown",
        isolation=tenant.placement.isolation.value if tenant and tenant.placement else "",
        plan=", ".join(sorted({subscription.plan_code for subscription in each.subscriptions})),
        period=_period(each.start, each.end),
        meters=tuple(_meter_cell(meter, total.quantity) for meter, total in meters[:METERS_SHOWN]),
        more_meters=max(0, len(meters) - METERS_SHOWN),
        amount=_money(each.amounts),
        bar=_share(amount, greatest),
    )


def _top_usage(ranked: Sequence[TenantBoard], directory: TenantDirectory) -> tuple[tuple[UsageBar, ...], int]:
    """The busiest (tenant, meter) pairs, by events counted."""
    pairs = [(each, meter, total) for each in ranked for meter, total in each.meters.items() if total.count]
    pairs.sort(key=lambda pair: (-pair[2].count, str(pair[0].tenant_id), pair[1]))
    greatest = pairs[0][2].count if pairs else Decimal(0)
    bars = []
    for each, meter, total in pairs[:USAGE_SHOWN]:
        tenant = directory.get(each.tenant_id)
        name = tenant.name if tenant else str(each.tenant_id)
        bars.append(UsageBar(name, meter, compact(total.count), grouped(total.count), _share(total.count, greatest)))
    return tuple(bars), max(0, len(pairs) - USAGE_SHOWN)


def _meter_cell(meter: str, quantity: Decimal) -> MeterCell:
    return MeterCell(meter, compact(quantity), grouped(quantity))


def _invoice_row(invoice: ShownInvoice, tenant: Tenant | None) -> InvoiceRow:
    return InvoiceRow(
        number=invoice.number,
        tenant=tenant.name if tenant else str(invoice.tenant_id),
        period=_period(invoice.period_from, invoice.period_to),
        amount=_money({invoice.currency: invoice.total}),
    )


def _revenue(open_amounts: Mapping[str, Decimal], invoiced: Mapping[str, tuple[int, Decimal]]) -> tuple[Revenue, ...]:
    return tuple(
        Revenue(
            currency=currency,
            open=_amount(open_amounts.get(currency, Decimal(0)), currency),
            invoiced=_amount(invoiced.get(currency, (0, Decimal(0)))[1], currency),
            invoices=invoiced.get(currency, (0, Decimal(0)))[0],
        )
        for currency in sorted(set(open_amounts) | set(invoiced))
    )


def _summed(tenants: Sequence[TenantBoard]) -> dict[str, Decimal]:
    amounts: dict[str, Decimal] = {}
    for each in tenants:
        for currency, amount in each.amounts.items():
            amounts[currency] = amounts.get(currency, Decimal(0)) + amount
    return amounts


def _money(amounts: Mapping[str, Decimal]) -> str:
    return " + ".join(f"{_amount(amount, currency)} {currency}" for currency, amount in sorted(amounts.items()))


def _amount(amount: Decimal, currency: str) -> str:
    return f"{Decimal(in_minor_units(amount, currency)):,f}"


def _period(start: object, end: object) -> str:
    return f"{start:%Y-%m-%d} to {end:%Y-%m-%d}"


def _share(value: Decimal, greatest: Decimal) -> int:
    """Per cent of the greatest, at least 1 for anything there is."""
    return 0 if greatest <= 0 or value <= 0 else max(1, int(value * 100 / greatest))
