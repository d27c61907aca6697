"""How many findings are open, as a metric of the process that is scraped."""

import asyncio
from typing import NoReturn

from prometheus_client import Gauge

from tenant_service.listening import until_it_works
from tenant_service.reconciling.findings import count_open
from tenant_service.transactions import Transactions

EVERY_SECONDS = 15.0

_OPEN = Gauge("tenantry_reconcile_findings", "Findings that are open", ["code", "service"])


async def keep_counts(transactions: Transactions) -> NoReturn:
    """Show every few seconds, until cancelled, what is open, whichever process has found it."""
    while True:
        async for attempt in until_it_works("counts of findings"):
            with attempt:
                await show_counts(transactions)
        await asyncio.sleep(EVERY_SECONDS)


async def show_counts(transactions: Transactions) -> None:
    """What is open now; a code that has no findings any more has no series."""
    async with transactions.begin() as session:
        counts = await count_open(session)
    _OPEN.clear()
    for (code, service), count in counts.items():
        _OPEN.labels(code, service).set(count)
