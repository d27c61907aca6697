"""The processes of the tenant service."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta

from tenant_service.app import create_app
from tenant_service.catalogue import CATALOGUE
from tenant_service.domains.checks import keep_domains
from tenant_service.domains.resolver import DnsResolver
from tenant_service.housekeeping import keep_house
from tenant_service.offboarding.expiry import keep_exports
from tenant_service.publication import TENANT_ACKS
from tenant_service.reconciling.consumers import REPORTS_GROUP, reports_handler
from tenant_service.reconciling.metrics import keep_counts
from tenant_service.reconciling.worker import Reconciler
from tenant_service.runs.consumers import acks_handler
from tenant_service.runs.worker import SagaWorker
from tenant_service.runtime import Runtime, open_databases, system_url
from tenant_service.settings import SERVICE, TenantSettings
from tenant_service.stores.service import ensure_default_store
from tenant_service.tenants.consumers import BILLING_EVENTS, billing_handler
from tenant_service.tenants.trials import keep_trials
from tenant_service.transactions import Transactions
from tenantry import SystemClock, spawn
from tenantry.cli import Role, serve_http
from tenantry.database import DatabaseSettings
from tenantry.events import KafkaSettings, OutboxRelay, RequestResponder, TransactionalConsumer
from tenantry.offboarding import ExportSettings, OffboardingWorker, offboarding_handlers
from tenantry.reconciling import OBSERVE_LANES, observing_handlers

# A thousand tenants that are provisioned at once are a thousand acks; a batch of them is three statements.
ACKS_AT_ONCE = 500
ACKS_WAIT_MS = 5


async def run_api() -> None:
    """HTTP: the registry, tokens, sessions."""
    settings = TenantSettings.from_env()
    async with Runtime.start(settings, DatabaseSettings.from_env(SERVICE), SystemClock()) as runtime:
        # Here and not in the worker: this is the process whose metrics are read.
        counting = spawn(None, keep_counts(runtime.transactions))
        try:
            await serve_http(create_app(runtime), host=settings.host, port=settings.port)
        finally:
            counting.cancel()


async def run_worker() -> None:
    """Sagas and the answers of services to them."""
    settings, database_settings, clock = TenantSettings.from_env(), DatabaseSettings.from_env(SERVICE), SystemClock()
    async with open_databases(database_settings) as databases, asyncio.TaskGroup() as tasks:
        transactions = Transactions(databases)
        async with transactions.begin() as session:
            await ensure_default_store(session, settings.default_store, settings.default_region, now=clock.now())
        worker = SagaWorker(
            transactions.begin,
            system_url(database_settings),
            settings.saga(),
            clock,
            concurrency=settings.saga_concurrency,
        )
        acks = TransactionalConsumer(
            kafka=KafkaSettings(),
            engine=databases.system,
            group="tenant-acks",
            topics=[TENANT_ACKS],
            handle=acks_handler(clock),
            max_records=ACKS_AT_ONCE,
            max_wait_ms=ACKS_WAIT_MS,
        )
        billing = TransactionalConsumer(
            kafka=KafkaSettings(),
            engine=databases.system,
            group="tenant-billing",
            topics=[BILLING_EVENTS],
            handle=billing_handler(clock),
        )
        exports = ExportSettings(export_url=settings.export_url).store()
        handlers = {
            **offboarding_handlers(databases, CATALOGUE, clock, exports=exports is not None),
            **observing_handlers(databases, CATALOGUE, None),
        }
        responder = RequestResponder(SERVICE, KafkaSettings(), databases.system, handlers, lanes=OBSERVE_LANES)
        tasks.create_task(responder.run())
        tasks.create_task(OffboardingWorker(databases, CATALOGUE, clock, store=exports).run())
        tasks.create_task(worker.run())
        tasks.create_task(acks.run())
        tasks.create_task(billing.run())
        reports = TransactionalConsumer(
            kafka=KafkaSettings(),
            engine=databases.system,
            group=REPORTS_GROUP,
            topics=[TENANT_ACKS],
            handle=reports_handler(clock),
            max_records=ACKS_AT_ONCE,
        )
        tasks.create_task(reports.run())
        tasks.create_task(Reconciler(transactions, KafkaSettings(), settings.reconciling(), clock).run())
        tasks.create_task(keep_trials(transactions, clock, timedelta(days=settings.trial_ending_days)))
        tasks.create_task(keep_house(transactions, clock))
        if exports is not None:
            tasks.create_task(keep_exports(transactions, exports, settings.exports_kept, clock))
        resolver = DnsResolver(settings.dns_servers)
        tasks.create_task(keep_domains(transactions, resolver, settings.domain_policy(), clock))


async def run_relay() -> None:
    """The outbox."""
    async with open_databases(DatabaseSettings.from_env(SERVICE)) as databases:
        await OutboxRelay(SERVICE, databases.system, KafkaSettings()).run()


def _role(name: str, purpose: str, run: Callable[[], Awaitable[None]]) -> Role:
    return Role(name=f"{SERVICE}-{name}", service=SERVICE, help=purpose, run=run)


ROLES = (
    _role("api", "Registry of tenants, tokens and sessions over HTTP", run_api),
    _role("worker", "Provisioning and clock sagas", run_worker),
    _role("relay", "Publishes the tenant service's outbox", run_relay),
)
