"""Money as exact decimals in major units, rounded once, to the currency's minor unit.

Exponents: ISO 4217 list one (active codes). A code that is not listed is refused: guessing two decimals
would charge a dinar a tenfold.
"""

from collections.abc import Callable, Sequence
from decimal import ROUND_FLOOR, ROUND_HALF_UP, Context, Decimal, localcontext
from functools import wraps
from typing import Final, ParamSpec, TypeVar

from billing_service.domain.errors import UnknownCurrencyError

P = ParamSpec("P")
T = TypeVar("T")

# Quantities have at most 38 digits and prices fewer, so sums of products of two of them are exact in 120 digits;
# a quotient (proration by days) is off by less than 1e-100 of itself, far from any tie that a denominator of
# at most 366 days could come near without being one.
EXACT: Final = Context(prec=120)


def exact(function: Callable[P, T]) -> Callable[P, T]:
    """Run `function` in the EXACT context: the default one would round to 28 digits without a word."""

    @wraps(function)
    def computed_exactly(*args: P.args, **kwargs: P.kwargs) -> T:
        with localcontext(EXACT):
            return function(*args, **kwargs)

    return computed_exactly


_NO_MINOR_UNIT = "BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX UYI VND VUV XAF XOF XPF"
_TWO_DECIMALS = (
    "AED AFN ALL AMD AOA ARS AUD AWG AZN BAM BBD BDT BGN BMD BND BOB BOV BRL BSD BTN BWP BYN BZD CAD CDF CHE CHF CHW "
    "CNY COP COU CRC CUP CVE CZK DKK DOP DZD EGP ERN ETB EUR FJD FKP GBP GEL GHS GIP GMD GTQ GYD HKD HNL HTG HUF IDR "
    "ILS INR IRR JMD KES KGS KHR KPW KYD KZT LAK LBP LKR LRD LSL MAD MDL MGA MKD MMK MNT MOP MRU MUR MVR MWK MXN MXV "
    "MYR MZN NAD NGN NIO NOK NPR NZD PAB PEN PGK PHP PKR PLN QAR RON RSD RUB SAR SBD SCR SDG SEK SGD SHP SLE SOS SRD "
    "SSP STN SVC SYP SZL THB TJS TMT TOP TRY TTD TWD TZS UAH USD USN UYU UZS VED VES WST XAD XCD XCG YER ZAR ZMW ZWG"
)
_THREE_DECIMALS = "BHD IQD JOD KWD LYD OMR TND"
_FOUR_DECIMALS = "CLF UYW"

_EXPONENTS: Final[dict[str, int]] = {
    code: exponent
    for exponent, codes in ((0, _NO_MINOR_UNIT), (2, _TWO_DECIMALS), (3, _THREE_DECIMALS), (4, _FOUR_DECIMALS))
    for code in codes.split()
}
_QUANTA: Final[dict[str, Decimal]] = {code: Decimal(1).scaleb(-exponent) for code, exponent in _EXPONENTS.items()}


def minor_unit(currency: str) -> Decimal:
    """The smallest amount of `currency` ("0.01" for USD). Raises UnknownCurrencyError."""
    try:
        return _QUANTA[currency]
    except KeyError:
        raise UnknownCurrencyError(f"{currency!r} is not an active ISO 4217 currency") from None


def round_amount(amount: Decimal, currency: str) -> Decimal:
    """`amount` in whole minor units, half away from zero (-10.125 USD is -10.13)."""
    return amount.quantize(minor_unit(currency), rounding=ROUND_HALF_UP, context=EXACT)


@exact
def allocate(total: Decimal, weights: Sequence[Decimal], currency: str) -> list[Decimal]:
    """Split `total` by `weights` so that the parts are whole minor units and sum to it, by largest remainder.

    Equal remainders go to the earlier part. All weights zero puts everything on the first part. A negative total
    is split as its opposite. Weights must not be negative, and `total` must be whole minor units.
    """
    if not weights:
        return []
    whole = sum(weights, Decimal(0))
    if whole == 0:
        return [total, *(Decimal(0) for _ in weights[1:])]
    unit = minor_unit(currency)
    sign = Decimal(-1) if total < 0 else Decimal(1)
    units = abs(total) / unit
    shares = [units * weight / whole for weight in weights]
    parts = [share.quantize(Decimal(1), rounding=ROUND_FLOOR) for share in shares]
    missing = int(units - sum(parts, Decimal(0)))
    by_remainder = sorted(range(len(parts)), key=lambda index: (parts[index] - shares[index], index))
    for index in by_remainder[:missing]:
        parts[index] += 1
    return [(sign * part * unit).quantize(unit) for part in parts]


def plain(number: Decimal) -> str:
    """`number` as people write it: no exponent, no trailing zeros after the point ("1200", "0.5")."""
    text = format(number, "f")
    return text.rstrip("0").rstrip(".") if "." in text else text
