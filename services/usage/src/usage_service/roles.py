"""The processes of the usage service."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial

from msgspec.structs import replace

from tenantry import StartupRefused, SystemClock, Tenancy
from tenantry.cli import Role, serve_http
from tenantry.database import Databases, DatabaseSettings, UnsafeRole
from tenantry.events import (
    STATE_APPLIED,
    KafkaDirectory,
    KafkaSettings,
    Lane,
    OutboxRelay,
    RequestResponder,
    TransactionalConsumer,
    state_applied,
)
from tenantry.offboarding import ExportSettings, OffboardingWorker, offboarding_handlers
from tenantry.reconciling import OBSERVE_LANES, observing_handlers
from usage_service.app import SERVICE, create_app
from usage_service.archive.archivist import Archivist
from usage_service.archive.holding import ArchivedEvents
from usage_service.archive.reading import ArchiveReader
from usage_service.archive.store import ArchiveStore
from usage_service.backfilling.keeper import BackfillKeeper
from usage_service.consumers import clock_handler
from usage_service.corrections.archived import ArchivedCorrections
from usage_service.data_catalogue import CATALOGUE
from usage_service.dead_letters.unmatched import watch_unmatched
from usage_service.entitlements.balances import BalanceKeeper
from usage_service.entitlements.following import GROUP as ENTITLED
from usage_service.entitlements.following import TOPICS as ENTITLING
from usage_service.entitlements.following import EntitledFollower
from usage_service.entitlements.records import withdraw_balances
from usage_service.entitlements.watermark import BalanceWatermark
from usage_service.erasure.worker import ErasureWorker
from usage_service.housekeeping import keep_house
from usage_service.metering.days import OwnedDays
from usage_service.metering.identities import KnownIdentities
from usage_service.metering.parking import nudge_parked
from usage_service.metering.worker import GROUP, NUDGE, TOPIC, MeterWorker
from usage_service.not_counted.keeper import NotCountedKeeper
from usage_service.publishing.cuts import CutKeeper
from usage_service.publishing.held import keep_at
from usage_service.publishing.lags import watch_lags
from usage_service.publishing.rollups import RollupRelay, queue_erased
from usage_service.publishing.watermark import advance_watermark
from usage_service.retention.keeper import RetentionKeeper
from usage_service.routing.rates import TenantRates
from usage_service.routing.router import route_tenants
from usage_service.settings import UsageSettings

# A batch makes some hundred thousand short-lived objects; collecting every 700 of them finds nothing, often.
_COLLECT_AFTER = 100_000
_FETCH_BYTES = 4 << 20


async def run_api() -> None:
    """HTTP: ingest, meters, queries, cuts."""
    settings, kafka = UsageSettings.from_env(), KafkaSettings()
    tenancy = Tenancy.from_env(SERVICE, follow_placement=False)
    await serve_http(create_app(settings, tenancy, kafka), host=settings.host, port=settings.port)


async def run_meter() -> None:
    """Counts events. Several members in one process: while one waits for PostgreSQL the next one decodes."""
    settings, kafka, database = UsageSettings.from_env(), KafkaSettings(), DatabaseSettings.from_env(SERVICE)
    if database.migrator_database_url is None:
        raise StartupRefused("USAGE_MIGRATOR_DATABASE_URL is not set: the meter worker makes partitions with it")
    gc.set_threshold(_COLLECT_AFTER, 20, 50)
    days = OwnedDays(database.migrator_database_url, window_days=settings.dedupe_window_days)
    async with _databases(database) as databases, _directory(kafka) as state, asyncio.TaskGroup() as tasks:
        rates = TenantRates()
        tasks.create_task(rates.keep_writing(databases.system))
        identities = KnownIdentities(group=kafka.group(GROUP), topic=kafka.topic(TOPIC))
        for _ in range(settings.meter_members):
            worker = MeterWorker(
                directory=state.directory,
                days=days,
                window_days=settings.dedupe_window_days,
                group=kafka.group(GROUP),
                topic=kafka.topic(TOPIC),
                identities=identities,
                rates=rates,
            )
            consumer = TransactionalConsumer(
                kafka=kafka,
                engine=databases.system,
                group=GROUP,
                topics=[TOPIC],
                handle=worker.handle,
                max_records=settings.meter_batch,
                max_wait_ms=settings.meter_wait_ms,
                contiguous=True,
                partition_fetch_bytes=_FETCH_BYTES,
            )
            tasks.create_task(consumer.run())


async def run_relay() -> None:
    """Everything that is neither HTTP nor counting: what is published, what is worked out in the background, what is
    kept or dropped, and the answers to the tenant service.
    """
    settings, kafka, database = UsageSettings.from_env(), KafkaSettings(), DatabaseSettings.from_env(SERVICE)
    if database.migrator_database_url is None:
        raise StartupRefused("USAGE_MIGRATOR_DATABASE_URL is not set: days that are archived are dropped with it")
    archive = await ArchiveStore.open(settings.archive_url, settings.archive_directory)
    async with _databases(database) as databases, _directory(kafka) as state, asyncio.TaskGroup() as tasks:
        engine = databases.system
        handlers = {
            "clock.advance": clock_handler(state, wait_seconds=settings.clock_wait_seconds),
            STATE_APPLIED: state_applied(state),
        }
        lanes = {**dict.fromkeys(handlers, Lane.WAITING), **OBSERVE_LANES}
        exports, clock = ExportSettings.from_env().store(), SystemClock()
        handlers |= offboarding_handlers(databases, CATALOGUE, clock, exports=exports is not None)
        handlers |= observing_handlers(databases, CATALOGUE, state)
        erased = {"usage_rollup": queue_erased, "entitlement_balance": withdraw_balances}
        entitled = TransactionalConsumer(
            kafka=kafka,
            engine=engine,
            group=ENTITLED,
            topics=ENTITLING,
            handle=EntitledFollower(kafka, state.directory.is_purged).handle,
        )
        archivist = Archivist(engine, archive)
        archived = ArchivedEvents(engine, archive, archivist)
        reader = ArchiveReader(databases, archive)
        corrections = ArchivedCorrections(engine, reader)
        for work in (
            RollupRelay(engine, kafka).run(),
            CutKeeper(engine, kafka, group=GROUP, topic=TOPIC).run(),
            BalanceWatermark(engine, kafka).run(),
            OutboxRelay(SERVICE, engine, kafka).run(),
            RequestResponder(SERVICE, kafka, engine, handlers, lanes=lanes).run(),
            OffboardingWorker(databases, CATALOGUE, clock, store=exports, erased=erased, holdings=[archived]).run(),
            ErasureWorker(engine, archive, archivist, corrections, clock).run(),
            entitled.run(),
            keep_at("balances", BalanceKeeper(databases, state.directory, clock, reader).run),
            keep_at("what is not counted", NotCountedKeeper(databases, state.directory, clock).run),
            keep_at("watermark", partial(advance_watermark, engine, kafka, group=GROUP, topic=TOPIC)),
            keep_at("parked records", partial(nudge_parked, engine, kafka, TOPIC, NUDGE)),
            keep_at("lags", partial(watch_lags, engine)),
            keep_at("routing", partial(route_tenants, engine, state.directory, settings.routing_policy)),
            keep_at("unmatched types", partial(watch_unmatched, engine)),
            keep_at("backfills", BackfillKeeper(engine, reader).run),
            keep_at("archived corrections", corrections.run),
            keep_at("housekeeping", partial(keep_house, databases, archive)),
            RetentionKeeper(
                engine, archivist, settings.terms, clock, migrator_url=database.migrator_database_url
            ).run(),
        ):
            tasks.create_task(work)


@asynccontextmanager
async def _databases(settings: DatabaseSettings) -> AsyncIterator[Databases]:
    # The relay holds a connection for each lane, the cuts and the outbox, beside what its work takes now and then.
    databases = Databases(SERVICE, replace(settings, system_pool_size=24), follow_placement=False)
    try:
        await databases.verify_roles()
        yield databases
    except UnsafeRole as error:
        raise StartupRefused(str(error)) from error
    finally:
        await databases.dispose()


@asynccontextmanager
async def _directory(kafka: KafkaSettings) -> AsyncIterator[KafkaDirectory]:
    state = KafkaDirectory(kafka)
    try:
        await state.start()
        yield state
    finally:
        await state.stop()


def _role(name: str, purpose: str, run: Callable[[], Awaitable[None]]) -> Role:
    return Role(name=f"{SERVICE}-{name}", service=SERVICE, help=purpose, run=run)


ROLES = (
    _role("api", "Ingest, meters and queries over HTTP", run_api),
    _role("meter", "Counts usage events exactly once", run_meter),
    _role("relay", "Publishes rollups, cuts, balances and alerts; backfills, archives, retains and erases", run_relay),
)
