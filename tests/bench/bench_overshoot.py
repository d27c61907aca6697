"""`quota_overshoot`: by how much a hard quota is exceeded while several processes use it up at once.

Everything but the product is a process of its own, as in production: uses go to Kafka as events, are counted, become
balances, and reach each product over `usage.balances.v1`. The quota is the tier's, so it begins without a balance.
The limit beside the figure is the bound that the library states: (processes - 1) x delay x rate, with the longest
delay from a use to its balance that was seen in this run.
`quota_check` is what one check costs.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal

import msgspec
from aiokafka import AIOKafkaProducer
from report import Row, Servers, row
from usage_stack import UsageStack, usage_stack
from workload import Workload

from tenantry import QuotaExceeded, Tenant, TenantStatus, Tier, uuid7
from tenantry.entitlements import Balance, BalanceReader, BalanceStore, Entitlements, parse_entitlements
from tenantry.events import UsageEvent, UsageProducer, create_topics, encode_usage_event, partition_key

LIMIT = 5_000
PROCESSES = 4
RATE = 400  # uses a second that each process is asked for
TICK_SECONDS = 0.01
HOLD_SECONDS = 3.0
REFUSED_SECONDS = 10.0  # how long all have to be refused before it is over: until nobody holds anything
CHECKS = 100_000
FEATURE = "api-calls"
ENTITLEMENTS = {FEATURE: {"limit": LIMIT}}


@dataclass
class Uses:
    """What was let pass so far: by whom does not matter."""

    moments: list[float] = field(default_factory=list)
    last: float = 0.0

    def pass_one(self) -> None:
        self.last = time.monotonic()
        self.moments.append(self.last)


async def run(servers: Servers) -> list[Row]:
    """Uses beyond the limit, and nanoseconds of a check."""
    return [await _overshoot(servers), _check()]


async def _overshoot(servers: Servers) -> Row:
    workload = Workload(tenants=1)
    async with usage_stack(servers) as stack, AsyncExitStack() as running:
        await create_topics(stack.kafka, only=["usage.balances.v1", "usage.alerts.v1", "billing.state.v1"])
        await stack.publish_state(workload)
        await stack.put_meters()
        tenant = _tenant(workload)
        await _put_tier(stack)
        await running.enter_async_context(stack.role("usage-meter"))
        await running.enter_async_context(stack.role("usage-relay"))
        producer = UsageProducer(stack.kafka)
        await producer.start()
        running.push_async_callback(producer.stop)
        products = [await _product(stack, running) for _ in range(PROCESSES)]
        uses, delays = Uses(), [0.0]
        # One use goes all the way before the others begin, so that no worker is still starting then.
        uses.pass_one()
        await producer.send([(partition_key(tenant.id), _event(tenant))])
        async with asyncio.timeout(60):
            while any(_counted(each.store, tenant) < 1 for each in products):  # noqa: ASYNC110 (no event)
                await asyncio.sleep(TICK_SECONDS)
        uses.last = time.monotonic()
        watching = asyncio.create_task(_watch(products[0].store, tenant, uses, delays))
        await asyncio.gather(*(_use_up(product, tenant, producer, uses) for product in products))
        watching.cancel()
    bound = (PROCESSES - 1) * RATE * max(delays)
    return row(
        "quota_overshoot",
        len(uses.moments) - LIMIT,
        "uses",
        limit=bound,
        quota=LIMIT,
        processes=PROCESSES,
        rate=RATE,
        delay=round(max(delays), 3),
    )


def _tenant(workload: Workload) -> Tenant:
    return Tenant(
        id=workload.tenant_ids[0], slug="bench-0", name="Bench", status=TenantStatus.ACTIVE, tier="bench", version=1,
        created_at=datetime(2026, 1, 1, tzinfo=UTC),
    )  # fmt: skip


async def _put_tier(stack: UsageStack) -> None:
    tier = Tier(name="bench", version=2, max_event_age_seconds=None, entitlements=ENTITLEMENTS)
    producer = AIOKafkaProducer(**stack.kafka.client_options(), acks="all")
    await producer.start()
    try:
        topic = stack.kafka.topic("platform.state.v1")
        await producer.send_and_wait(topic, key=b"tier/bench", value=msgspec.json.encode(tier))
    finally:
        await producer.stop()


async def _product(stack: UsageStack, running: AsyncExitStack) -> Entitlements:
    store = BalanceStore()
    reader = BalanceReader(stack.kafka, store)
    running.push_async_callback(reader.stop)
    await reader.start()
    terms = parse_entitlements(ENTITLEMENTS, of="tier")
    return Entitlements(
        store,
        lag_seconds=lambda: reader.lag_seconds,
        hold_seconds=HOLD_SECONDS,
        given=lambda _tenant, feature: terms.get(feature),
    )


async def _use_up(product: Entitlements, tenant: Tenant, producer: UsageProducer, uses: Uses) -> None:
    """Asks at the rate, whatever the answers, and sends an event for each use that passes."""
    asked, started = 0, time.monotonic()
    while time.monotonic() - uses.last < REFUSED_SECONDS:
        due = int((time.monotonic() - started) * RATE)
        passed = 0
        for _ in range(due - asked):
            try:
                product.check(FEATURE, tenant=tenant)
            except QuotaExceeded:
                continue
            uses.pass_one()
            passed += 1
        asked = due
        if passed:
            await producer.send([(partition_key(tenant.id), _event(tenant)) for _ in range(passed)])
        await asyncio.sleep(TICK_SECONDS)


def _event(tenant: Tenant) -> bytes:
    return encode_usage_event(
        UsageEvent(
            id=str(uuid7()),
            source="bench",
            type="http.request",
            subject=str(tenant.id),
            time=datetime.now(UTC),
            data={"method": "GET", "path": "/", "bytes": 1},
        )
    )


async def _watch(store: BalanceStore, tenant: Tenant, uses: Uses, delays: list[float]) -> None:
    """Notes how old the first use is that a balance does not know, just before the next balance comes."""
    while True:
        counted = _counted(store, tenant)
        if counted < len(uses.moments):
            delays.append(time.monotonic() - uses.moments[counted])
        await asyncio.sleep(TICK_SECONDS)


def _counted(store: BalanceStore, tenant: Tenant) -> int:
    known = store.get(tenant.id, FEATURE)
    return 0 if known is None else int(known.usage or 0)


def _check() -> Row:
    workload = Workload(tenants=1)
    tenant, store = _tenant(workload), BalanceStore()
    balance = Balance(
        tenant_id=str(tenant.id), feature=FEATURE, has_access=True, hard=True, balance=Decimal(10**9), limit=Decimal(1)
    )
    store.apply(tenant.id, FEATURE, balance, 1)
    entitlements = Entitlements(store, lag_seconds=lambda: 0.0)
    started = time.perf_counter()
    for _ in range(CHECKS):
        entitlements.check(FEATURE, tenant=tenant)
    return row("quota_check", (time.perf_counter() - started) / CHECKS * 1e9, "ns")
