"""What the rules refuse. Plain ValueErrors: the domain knows no HTTP, the application renders them as 422.

BillingRuleError
├── UnknownCurrencyError        not in ISO 4217's table of minor units
├── InvalidScheduleError        a calendar that hourly usage cannot be cut by, or a zone that does not exist
├── UnsupportedPriceError       a plan that has no price in the subscription's currency
└── UnbillableMeterError        a charge for a meter that neither counts nor sums
"""


class BillingRuleError(ValueError):
    """A value that the rules of billing do not allow; the message is fit for the caller."""


class UnknownCurrencyError(BillingRuleError):
    pass


class InvalidScheduleError(BillingRuleError):
    pass


class UnsupportedPriceError(BillingRuleError):
    pass


class UnbillableMeterError(BillingRuleError):
    pass
