"""The sample run from the first tenant to the last invoice."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from tenantry_dev.run.settings import GRACE_SECONDS, OPERATOR, SAMPLE_TRAFFIC
from tenantry_dev.run.system import System
from tenantry_dev.sample.api import Api, Apis, SampleError, connect
from tenantry_dev.sample.onboarding import (
    SampleTenant,
    advance_clock,
    make_clock,
    month_end,
    onboard,
    subscribe,
)
from tenantry_dev.sample.record import Record
from tenantry_dev.sample.replay import Replayed, replay
from tenantry_dev.sample.traces import Trace
from tenantry_dev.sample.traffic import REQUESTS_PER_TENANT, drive

_RUN_SECONDS = 120.0
_FINISHED = frozenset({"done", "failed"})


@dataclass(frozen=True)
class SampleRun:
    """What came of it. `live` is what the driver of the app service counted, by slug; `invoices` are API documents."""

    tenants: Sequence[SampleTenant]
    clock: datetime
    replayed: dict[str, Replayed]
    live: dict[str, Counter[str]]
    invoices: Sequence[dict[str, Any]]


async def run_sample(system: System, record: Record, traces: Sequence[Trace], console: Console) -> SampleRun:
    """Onboards, replays, drives live traffic, closes the months and fetches the invoices, with progress bars.

    May follow a run that was killed anywhere, or one that finished: nothing is counted or billed twice.
    """
    urls = system.addresses.urls
    kept = system.secrets
    async with (
        connect(urls, OPERATOR, kept[OPERATOR]) as operator,
        connect(urls, SAMPLE_TRAFFIC, kept[SAMPLE_TRAFFIC]) as sender,
    ):
        with _progress(console) as progress:
            tenants, clock = await _onboard(operator, record, traces, progress)
            live = asyncio.create_task(_drive(system, tenants, progress))
            replayed: dict[str, Replayed] = {}
            for trace in traces:
                await advance_clock(operator.tenant, clock, trace.last)
                await subscribe(operator.billing, record, tenants, trace)
                bar = progress.add_task(f"Replaying {trace.path.name}", total=trace.events_total)
                replayed[trace.kind] = await replay(sender.usage, trace, tenants, partial(progress.advance, bar))
            counted = await live
            bar = progress.add_task("Closing the months", total=2)
            end = max(month_end(trace.last) for trace in traces) + timedelta(seconds=GRACE_SECONDS)
            shown = await advance_clock(operator.tenant, clock, end)
            progress.advance(bar)
            await _bill(operator.billing, shown)
            progress.advance(bar)
        invoices = await _invoices(operator.billing, tenants)
    return SampleRun(tenants, shown, replayed, counted, invoices)


async def _onboard(
    operator: Apis, record: Record, traces: Sequence[Trace], progress: Progress
) -> tuple[list[SampleTenant], str]:
    bar = progress.add_task("Onboarding twelve tenants", total=1)
    clock = await make_clock(operator.tenant, record, traces[0].first)
    tenants = await onboard(operator, record, clock)
    progress.advance(bar)
    return tenants, clock


async def _drive(system: System, tenants: Sequence[SampleTenant], progress: Progress) -> dict[str, Counter[str]]:
    bar = progress.add_task("Documents and files", total=len(tenants) * REQUESTS_PER_TENANT)
    return await drive(system.addresses.url("app"), tenants, partial(progress.advance, bar))


async def _bill(billing: Api, as_of: datetime) -> None:
    text = as_of.isoformat().replace("+00:00", "Z")
    run = await billing.post("/v1/invoice-runs", {"as_of": text}, key=f"sample-{text}")
    done = await billing.until(
        f"/v1/invoice-runs/{run['id']}", lambda now: now["state"] in _FINISHED, within=_RUN_SECONDS
    )
    if done["state"] != "done":
        raise SampleError(f"The invoice run failed: {done}")


async def _invoices(billing: Api, tenants: Sequence[SampleTenant]) -> list[dict[str, Any]]:
    """With their lines, by tenant and period."""
    found = []
    for tenant in tenants:
        listed = [invoice async for invoice in billing.items("/v1/invoices", tenant_id=tenant.id)]
        full = await asyncio.gather(*(billing.get(f"/v1/invoices/{invoice['id']}") for invoice in listed))
        found.extend(sorted(full, key=lambda invoice: (invoice["period"]["from"], invoice["number"])))
    return found


@contextmanager
def _progress(console: Console) -> Iterator[Progress]:
    columns = (
        SpinnerColumn(finished_text="[green]✓"),
        TextColumn("{task.description:<28}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console) as progress:
        yield progress
