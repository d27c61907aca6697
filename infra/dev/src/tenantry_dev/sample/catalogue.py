"""What the sample sells: a tier, the meters, two plans. Documents as the services' APIs take them."""

from __future__ import annotations

from typing import Any

TIER = "sample"
# No limit of age: the traces are years old when they are replayed.
TIER_DOCUMENT: dict[str, Any] = {"max_event_age_seconds": None, "limits": {}, "entitlements": {}, "isolation": "pool"}

METERS: dict[str, dict[str, Any]] = {
    "http-requests": {"event_type": "http.request", "aggregation": "count", "unit": "request"},
    "http-bytes": {"event_type": "http.request", "aggregation": "sum", "value": "$.bytes", "unit": "byte"},
    "llm-requests": {"event_type": "llm.request", "aggregation": "count", "unit": "request"},
    "llm-input-tokens": {
        "event_type": "llm.request",
        "aggregation": "sum",
        "value": "$.input_tokens",
        "unit": "token",
    },
    "llm-output-tokens": {
        "event_type": "llm.request",
        "aggregation": "sum",
        "value": "$.output_tokens",
        "unit": "token",
    },
    "app-requests": {"event_type": "app.request", "aggregation": "count", "unit": "request"},
    "app-bytes-in": {"event_type": "app.request", "aggregation": "sum", "value": "$.bytes_in", "unit": "byte"},
    "app-bytes-out": {"event_type": "app.request", "aggregation": "sum", "value": "$.bytes_out", "unit": "byte"},
    "documents": {"event_type": "document.created", "aggregation": "count", "unit": "document"},
    "storage-bytes": {"event_type": "storage.bytes", "aggregation": "sum", "value": "$.delta", "unit": "byte"},
}

CURRENCY = "USD"
PLAN_OF_KIND = {"log": "sample-log", "llm": "sample-llm"}

PLANS: dict[str, dict[str, Any]] = {
    "sample-log": {
        "currencies": [CURRENCY],
        "interval": "month",
        "zero_invoices": "skip",
        "skip_without_usage": True,
        "charges": [
            {"code": "base", "pay": "in_arrears", "price": {"model": "flat", "amount": "5.00"}},
            {
                "code": "requests",
                "meter": "http-requests",
                "pay": "in_arrears",
                "price": {
                    "model": "graduated",
                    "bill_zero": False,
                    "tiers": [
                        {"up_to": "500", "unit_amount": "0.0125", "flat_amount": "0"},
                        {"up_to": "1000", "unit_amount": "0.0085", "flat_amount": "1.50"},
                        {"up_to": None, "unit_amount": "0.0045", "flat_amount": "0"},
                    ],
                },
            },
            {
                "code": "bandwidth",
                "meter": "http-bytes",
                "pay": "in_arrears",
                "price": {"model": "per_unit", "unit_amount": "0.000000085"},
            },
        ],
    },
    "sample-llm": {
        "currencies": [CURRENCY],
        "interval": "month",
        "zero_invoices": "skip",
        "skip_without_usage": True,
        "charges": [
            {"code": "base", "pay": "in_arrears", "price": {"model": "flat", "amount": "20.00"}},
            {
                "code": "input",
                "meter": "llm-input-tokens",
                "pay": "in_arrears",
                "price": {
                    "model": "graduated",
                    "bill_zero": False,
                    "tiers": [
                        {"up_to": "250000", "unit_amount": "0.0000300", "flat_amount": "0"},
                        {"up_to": "1000000", "unit_amount": "0.0000225", "flat_amount": "0"},
                        {"up_to": None, "unit_amount": "0.0000175", "flat_amount": "0"},
                    ],
                },
            },
            {
                "code": "output",
                "meter": "llm-output-tokens",
                "pay": "in_arrears",
                "price": {"model": "per_unit", "unit_amount": "0.000125"},
            },
        ],
    },
}


def tenant_slug(number: int) -> str:
    return f"sample-{number:02}"


def tenant_isolation(number: int) -> str:
    """Eight tenants share tables, three have schemas of their own, one a database."""
    if number == 11:
        return "database"
    return "pool" if number < 8 else "schema"
