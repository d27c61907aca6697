"""The processes that the service is made of."""

import asyncio

from app_service.app import SERVICE, create_app
from app_service.consumers import LANES, request_handlers
from app_service.housekeeping import keep_house
from app_service.jobs import jobs
from app_service.models import CATALOGUE
from app_service.settings import AppSettings
from tenantry import StartupRefused, SystemClock, Tenancy, TenancySettings
from tenantry.cli import Role, serve_http
from tenantry.database import Databases, DatabaseSettings, Places
from tenantry.events import KafkaDirectory, KafkaSettings, RequestResponder, relay_stores
from tenantry.jobs import JobWorker
from tenantry.offboarding import ExportSettings, OffboardingWorker, offboarding_handlers
from tenantry.reconciling import observing_handlers


async def run_api() -> None:
    """Serve documents and files, and ship what was metered."""
    settings = AppSettings()
    async with Tenancy.from_env(SERVICE, meter=True).run() as tenancy:
        await serve_http(create_app(settings, tenancy), host=settings.host, port=settings.port)


async def run_worker() -> None:
    """Answer the tenant service: make the places of tenants, follow their clocks."""
    settings, database_settings, kafka = AppSettings(), DatabaseSettings.from_env(SERVICE), KafkaSettings()
    if database_settings.provisioner_database_url is None:
        raise StartupRefused("APP_PROVISIONER_DATABASE_URL is not set")
    state = KafkaDirectory(kafka)
    databases = Databases(SERVICE, database_settings)
    platform = TenancySettings()
    async with Tenancy(SERVICE, platform, source=state, databases=databases).run():
        places = Places(SERVICE, database_settings)
        exports, clock = ExportSettings.from_env().store(), SystemClock()
        handlers = {
            **request_handlers(state, places, clock_wait_seconds=settings.clock_wait_seconds),
            **offboarding_handlers(databases, CATALOGUE, clock, exports=exports is not None),
            **observing_handlers(databases, CATALOGUE, state, places=places),
        }
        offboarding = OffboardingWorker(databases, CATALOGUE, clock, store=exports, settings=database_settings)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(
                RequestResponder(SERVICE, kafka, databases.system, handlers, lanes=LANES, region=platform.region).run()
            )
            tasks.create_task(offboarding.run())
            tasks.create_task(keep_house(databases, state.directory))
            tasks.create_task(places.keep_warm())


async def run_jobs() -> None:
    """Run what tenants have queued: exports, and their end."""
    async with Tenancy.from_env(SERVICE, meter=True).run() as tenancy:
        await JobWorker(jobs, tenancy).run()


async def run_relay() -> None:
    """Publish the outbox of every store, which holds the answers."""
    async with Tenancy.from_env(SERVICE).run() as tenancy:
        await relay_stores(SERVICE, tenancy.databases, KafkaSettings())


ROLES = (
    Role("app-api", SERVICE, "Documents and files over HTTP", run_api),
    Role("app-worker", SERVICE, "Makes the places of tenants and follows their clocks", run_worker),
    Role("app-jobs", SERVICE, "Runs the jobs of tenants", run_jobs),
    Role("app-relay", SERVICE, "Publishes the app service's outbox", run_relay),
)
