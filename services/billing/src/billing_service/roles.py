"""The processes of the billing service."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta

import structlog
from sqlalchemy.exc import SQLAlchemyError

from billing_service.app import create_app
from billing_service.catalogue import CATALOGUE
from billing_service.invoicing.cuts import UsageCuts
from billing_service.invoicing.runner import InvoiceRunner
from billing_service.runtime import SERVICE, Runtime
from billing_service.subscriptions.service import withdraw_standings
from billing_service.usage.consumers import GROUP, TOPIC, RollupConsumer
from tenantry.cli import Role, serve_http
from tenantry.database import Databases
from tenantry.events import (
    STATE_APPLIED,
    Handler,
    Lane,
    OutboxRelay,
    RequestResponder,
    TransactionalConsumer,
    state_applied,
)
from tenantry.http import delete_expired_idempotency_keys
from tenantry.offboarding import ExportSettings, OffboardingWorker, offboarding_handlers
from tenantry.reconciling import OBSERVE_LANES, observing_handlers

# A month of hourly rollups of one replayed tenant is a few thousand records: large batches catch up quickly.
_ROLLUPS_AT_ONCE = 5_000
_HOUSEKEEPING_SECONDS = 3600.0

log = structlog.get_logger(__name__)


async def run_api() -> None:
    """HTTP and the live page."""
    runtime = Runtime.from_env()
    await serve_http(create_app(runtime), host=runtime.settings.host, port=runtime.settings.port)


async def run_worker() -> None:
    """The copy of the rollups, invoice runs, and the answers to the tenant service's requests."""
    runtime = Runtime.from_env()
    settings, tenancy = runtime.settings, runtime.tenancy
    async with (
        tenancy.run(),
        tenancy.client("usage") as usage,
        asyncio.TaskGroup() as tasks,
    ):
        engine = tenancy.databases.system
        rollups = TransactionalConsumer(
            kafka=runtime.kafka,
            engine=engine,
            group=GROUP,
            topics=[TOPIC],
            handle=RollupConsumer(tenancy.directory.is_purged).handle,
            max_records=_ROLLUPS_AT_ONCE,
        )
        runner = InvoiceRunner(
            tenancy.databases,
            tenancy.directory,
            UsageCuts(usage),
            tenancy.clock,
            freshen=runtime.freshen,
            chunk=settings.run_chunk,
            write_off=settings.write_off,
            cut_timeout=timedelta(seconds=settings.cut_timeout_seconds),
        )
        handlers: dict[str, Handler] = {
            "clock.advance": runtime.clock_advanced,
            STATE_APPLIED: state_applied(runtime.source),
        }
        lanes = {**dict.fromkeys(handlers, Lane.WAITING), **OBSERVE_LANES}
        exports = ExportSettings.from_env().store()
        handlers |= offboarding_handlers(tenancy.databases, CATALOGUE, tenancy.clock, exports=exports is not None)
        handlers |= observing_handlers(tenancy.databases, CATALOGUE, runtime.source)
        requests = RequestResponder(SERVICE, runtime.kafka, engine, handlers, lanes=lanes)
        # The ids of purged tenants must be known before any of their usage is stored again.
        tasks.create_task(runtime.when_ready(rollups.run))
        tasks.create_task(runtime.when_ready(runner.run))
        tasks.create_task(runtime.when_ready(requests.run))
        erased = {"standing": withdraw_standings}
        offboarding = OffboardingWorker(tenancy.databases, CATALOGUE, tenancy.clock, store=exports, erased=erased)
        tasks.create_task(offboarding.run())
        tasks.create_task(_keep_house(tenancy.databases))


async def run_relay() -> None:
    """The outbox."""
    runtime = Runtime.from_env()
    databases = runtime.tenancy.databases
    try:
        await databases.verify_roles()
        await OutboxRelay(SERVICE, databases.system, runtime.kafka).run()
    finally:
        await databases.dispose()


async def _keep_house(databases: Databases) -> None:
    """Forget what nobody can ask for any more, once an hour."""
    while True:
        try:
            async with databases.system_session() as session:
                await delete_expired_idempotency_keys(session)
        except (SQLAlchemyError, OSError) as error:
            log.warning("housekeeping is put off", error=str(error))
        await asyncio.sleep(_HOUSEKEEPING_SECONDS)


def _role(name: str, purpose: str, run: Callable[[], Awaitable[None]]) -> Role:
    return Role(name=f"{SERVICE}-{name}", service=SERVICE, help=purpose, run=run)


ROLES = (
    _role("api", "Plans, subscriptions, invoices and the live console over HTTP", run_api),
    _role("worker", "Copies rollups, runs invoices, answers requests", run_worker),
    _role("relay", "Publishes the billing service's outbox", run_relay),
)
