"""Keeps the console's board up to date: a snapshot of billing's own tables, then the rollup stream from where it stood.

The snapshot is read in one transaction together with the offsets of the rollup consumer, so that following the topic
from these offsets misses nothing and counts nothing twice. Afterwards the database is asked again only when the board
says that it cannot go on (a tenant or a period it does not know), never to look for changes.
"""

import asyncio
import time
from collections import deque
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Final
from uuid import UUID
from zoneinfo import ZoneInfo

import msgspec
import structlog
from aiokafka import AIOKafkaConsumer, ConsumerRecord
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from billing_service.bill_from.repository import bill_froms
from billing_service.catalog.repository import plan_versions
from billing_service.dashboard import repository
from billing_service.dashboard.board import Board, OpenSubscription, TenantBoard
from billing_service.dashboard.render import Fragments
from billing_service.dashboard.repository import ShownInvoice
from billing_service.dashboard.stream import Hub, frame
from billing_service.dashboard.view import INVOICES_SHOWN, Lag, View, build_view
from billing_service.domain.periods import Interval, Schedule
from billing_service.invoicing.events import FINALIZED
from billing_service.invoicing.events import TOPIC as BILLING_EVENTS
from billing_service.subscriptions import repository as subscriptions
from billing_service.subscriptions.models import Subscription
from billing_service.subscriptions.service import STATE_TOPIC
from billing_service.usage.consumers import GROUP
from billing_service.usage.consumers import TOPIC as ROLLUPS
from billing_service.usage.records import Rollup, Withdrawn, decode_record
from tenantry import Clock, LocalDirectory
from tenantry.database import Databases
from tenantry.events import InvalidRecord, KafkaSettings, decode

log = structlog.get_logger(__name__)

_TICK_SECONDS: Final = 0.2
_IDLE_TICK_SECONDS: Final = 1.0
_LAG_SECONDS: Final = 2.0
_RESYNC_SECONDS: Final = 2.0
# A snapshot may take a twentieth of the time, whatever it costs.
_RESYNC_SHARE: Final = 20
_RETRY_SECONDS: Final = 3.0
_RERATED_A_TICK: Final = 250
_ROW_LIMIT: Final = 300_000
_PAGE: Final = 1_000

_encode = msgspec.json.Encoder().encode


class _Invoiced(msgspec.Struct):
    invoice_id: UUID
    number: str
    tenant_id: UUID
    currency: str
    total: str
    period: dict[str, datetime]
    issued_at: datetime


class LivePage:
    """Feeds `hub` with frames of the console until cancelled."""

    def __init__(
        self,
        databases: Databases,
        kafka: KafkaSettings,
        directory: LocalDirectory,
        clock: Clock,
        hub: Hub,
        fragments: Fragments,
        *,
        stages: dict[str, tuple[str, str]],
    ) -> None:
        """`stages` are the consumers whose lag is shown: a label, then the group and the topic without prefix."""
        self._databases = databases
        self._kafka = kafka
        self._directory = directory
        self._clock = clock
        self._hub = hub
        self._fragments = fragments
        self._stages = stages
        self._board = Board([], row_limit=_ROW_LIMIT, complete=True)
        self._invoiced: dict[str, tuple[int, Decimal]] = {}
        self._invoices: deque[ShownInvoice] = deque(maxlen=INVOICES_SHOWN)
        self._known_invoices: set[UUID] = set()
        self._lags: list[Lag] = []
        self._offsets: dict[int, int] = {}
        self._resync_at = 0.0
        self._directory_version = -1

    def view(self) -> View:
        """What the page shows now."""
        return build_view(
            self._board,
            self._directory,
            second=int(time.time()),
            invoiced=self._invoiced,
            invoices=list(self._invoices),
            lags=self._lags,
        )

    async def run(self) -> None:
        """Follow until cancelled. Kafka and PostgreSQL being away is waited out; the page then shows its last state."""
        while True:
            try:
                await self._follow()
            except (KafkaError, SQLAlchemyError, OSError, TimeoutError) as error:
                log.warning("console waits", error=str(error))
                await asyncio.sleep(_RETRY_SECONDS)

    async def _follow(self) -> None:
        """Take a snapshot and follow the topics until the next one is needed."""
        consumer = AIOKafkaConsumer(
            *(self._kafka.topic(topic) for topic in (ROLLUPS, BILLING_EVENTS, STATE_TOPIC)),
            **self._kafka.client_options(),
            group_id=None,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            isolation_level="read_committed",
        )
        await consumer.start()
        try:
            # The ends of the event topics first: what is announced after them is in the snapshot, or read, or both.
            rollups = self._kafka.topic(ROLLUPS)
            ends = await consumer.end_offsets([each for each in consumer.assignment() if each.topic != rollups])
            await self._snapshot()
            for partition in consumer.assignment():
                if partition.topic != rollups:
                    consumer.seek(partition, ends[partition])
                elif (offset := self._offsets.get(partition.partition)) is not None:
                    consumer.seek(partition, offset)
                else:
                    await consumer.seek_to_beginning(partition)
            async with asyncio.TaskGroup() as tasks:
                watching = tasks.create_task(self._watch_lags(consumer))
                await self._consume(consumer)
                watching.cancel()
        finally:
            await consumer.stop()

    async def _consume(self, consumer: AIOKafkaConsumer) -> None:
        published_at = 0.0
        changed = True
        while True:
            fetched = await consumer.getmany(timeout_ms=int(_TICK_SECONDS * 1000), max_records=5_000)
            for records in fetched.values():
                changed = True
                for record in records:
                    self._apply(record)
            now = time.monotonic()
            # A tenant that came, or whose clock was advanced, may be in another period now.
            stale = self._board.needs_snapshot or self._directory.version != self._directory_version
            if stale and now >= self._resync_at:
                return
            since = now - published_at
            if since >= _IDLE_TICK_SECONDS or (changed and since >= _TICK_SECONDS):
                self._board.rerate(_RERATED_A_TICK)
                self._publish()
                published_at, changed = now, False

    def _apply(self, record: "ConsumerRecord[bytes, bytes]") -> None:
        try:
            if record.topic == self._kafka.topic(ROLLUPS):
                decoded = decode_record(record)
                match decoded:
                    case Rollup():
                        self._board.apply(decoded, int(time.time()))
                    case Withdrawn():
                        self._board.needs_snapshot = True
            elif record.topic == self._kafka.topic(STATE_TOPIC):
                self._board.needs_snapshot = True
            else:
                self._take_event(record)
        except InvalidRecord as error:
            log.info("console skips a record", reason=str(error))

    def _take_event(self, record: "ConsumerRecord[bytes, bytes]") -> None:
        event = decode(record)
        if event.type != FINALIZED:
            return
        data = msgspec.convert(event.data, _Invoiced)
        if data.invoice_id in self._known_invoices:
            return
        self._known_invoices.add(data.invoice_id)
        total = Decimal(data.total)
        count, amount = self._invoiced.get(data.currency, (0, Decimal(0)))
        self._invoiced[data.currency] = (count + 1, amount + total)
        self._invoices.appendleft(
            ShownInvoice(
                id=data.invoice_id,
                number=data.number,
                tenant_id=data.tenant_id,
                currency=data.currency,
                total=total,
                period_from=data.period["from"],
                period_to=data.period["to"],
                issued_at=data.issued_at,
            )
        )

    def _publish(self) -> None:
        if len(self._hub):
            self._hub.publish(frame("board", _encode(self._fragments.render(self.view()))))

    async def _snapshot(self) -> None:
        began = time.monotonic()
        self._directory_version = self._directory.version
        async with self._databases.system.connect() as connection, connection.begin():
            await repository.begin_snapshot(connection)
            self._offsets = await repository.stored_offsets(
                connection, self._kafka.group(GROUP), self._kafka.topic(ROLLUPS)
            )
            tenants = await self._open_tenants(connection)
            windows = [(each.tenant_id, each.start, each.end) for each in tenants]
            periods = [(each.tenant_id, start, end) for each in tenants for start, end in each.totals]
            counted = await repository.totals(connection, periods)
            for each in tenants:
                each.totals = {window: counted.get((each.tenant_id, window), {}) for window in each.totals}
            rows = await repository.rows(connection, windows, _ROW_LIMIT)
            self._invoiced = await repository.invoiced(connection)
            latest = await repository.latest_invoices(connection, INVOICES_SHOWN)
        board = Board(tenants, row_limit=_ROW_LIMIT, complete=len(rows) < _ROW_LIMIT)
        for key, state in reversed(rows):
            board.seed_row(key, state)
        board.keep_rate_of(self._board)
        self._board = board
        self._invoices = deque(latest, maxlen=INVOICES_SHOWN)
        self._known_invoices = {invoice.id for invoice in latest}
        board.rerate(_RERATED_A_TICK)
        ended = time.monotonic()
        self._resync_at = ended + max(_RESYNC_SECONDS, _RESYNC_SHARE * (ended - began))

    async def _open_tenants(self, connection: AsyncConnection) -> list[TenantBoard]:
        """Every tenant of the directory with the period it is in: its subscription's, else the calendar month."""
        by_tenant: dict[UUID, list[Subscription]] = {}
        async with AsyncSession(connection) as session:
            after = UUID(int=0)
            while page := await subscriptions.page(session, None, after, _PAGE):
                after = page[-1].id
                for subscription in page:
                    by_tenant.setdefault(subscription.tenant_id, []).append(subscription)
            seams = await bill_froms(session, by_tenant)
            plans = await plan_versions(
                session, ((each.plan_code, each.plan_version) for all_of in by_tenant.values() for each in all_of)
            )
        boards = []
        for tenant in self._directory:
            now = tenant.now(self._clock)
            opened = []
            for each in by_tenant.get(tenant.id, ()):
                plan = plans[each.plan_code, each.plan_version]
                period = each.schedule(plan.interval).period_at(now)
                if period is not None:
                    seam = seams.get(tenant.id)
                    opened.append(OpenSubscription(each.plan_code, plan, each.currency, period, each.quantities, seam))
            start, end = _window(opened, now)
            boards.append(TenantBoard(tenant.id, start, end, tuple(opened)))
        return boards

    async def _watch_lags(self, consumer: AIOKafkaConsumer) -> None:
        options: dict[str, Any] = self._kafka.client_options()
        admin = AIOKafkaAdminClient(**options)
        await admin.start()
        try:
            while True:
                self._lags = [
                    Lag(label, await self._lag(consumer, admin, group, topic))
                    for label, (group, topic) in self._stages.items()
                ]
                await asyncio.sleep(_LAG_SECONDS)
        finally:
            await admin.close()

    async def _lag(self, consumer: AIOKafkaConsumer, admin: AIOKafkaAdminClient, group: str, topic: str) -> int | None:
        """Records of `topic` behind what `group` has told Kafka that it has read; None where it never did."""
        try:
            committed = await admin.list_consumer_group_offsets(self._kafka.group(group))
            read = {key: value.offset for key, value in committed.items() if key.topic == self._kafka.topic(topic)}
            ends = await consumer.end_offsets(list(read))
        except KafkaError:
            return None
        return sum(max(0, ends[key] - offset) for key, offset in read.items()) if read else None


def _window(opened: list[OpenSubscription], now: datetime) -> tuple[datetime, datetime]:
    if opened:
        return min(each.period.start for each in opened), max(each.period.end for each in opened)
    first = now.astimezone(UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    month = next(iter(Schedule(first, Interval.MONTH, ZoneInfo("UTC")).periods()))
    return month.start, month.end
