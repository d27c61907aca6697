"""The one object that a service is composed with."""

import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final, ParamSpec, Self, TypeVar
from uuid import UUID

import httpx
from fastapi import FastAPI
from prometheus_client import Gauge

from tenantry._admission import admit, check_residency
from tenantry._background import running
from tenantry._clock import Clock, SystemClock
from tenantry._context import current_tenant, tenant_scope
from tenantry._errors import StartupRefused, TenantNotFound, Unavailable
from tenantry._settings import TenancySettings
from tenantry._shared_stores import cache_store, find_redis, shared_buckets
from tenantry._sources import ConfigSource, DirectorySource, StateSource
from tenantry._tenant import Operation, Tenant
from tenantry.cache import TenantCache
from tenantry.config import BRANDING, Branding, ConfigStore, ConfigView, branding_of
from tenantry.database import TENANT_ID, Databases, DatabaseSettings, TenantColumn
from tenantry.directory import DirectorySettings, directory_source
from tenantry.features import Features, FlagStore
from tenantry.http import (
    Cost,
    ReadinessCheck,
    RequestLimiting,
    RequestMetering,
    ServiceTransport,
    TenancyMiddleware,
    add_operational_routes,
)
from tenantry.identity import (
    ContextSigner,
    CredentialStore,
    ExternalVerifier,
    Hosts,
    Identifier,
    IssuerKeyring,
    IssuerRegistry,
    KeySet,
    KeyUse,
    Resolver,
    ServiceTokens,
    Source,
    StaticIssuers,
    TokenVerifier,
    Verifier,
    told_by,
)
from tenantry.limits import ConnectionShares, FairGate, Limiter

if TYPE_CHECKING:
    from tenantry.entitlements import Entitlements
    from tenantry.metering import MeteringClient, Spool


P = ParamSpec("P")
T = TypeVar("T")

_TENANT_SERVICE: Final = "tenant"

STALENESS = Gauge("tenantry_directory_staleness_seconds", "How old what is known of tenants may be", ["service"])
KNOWN = Gauge("tenantry_directory_tenants", "Tenants in the directory", ["service"])
READY = Gauge("tenantry_directory_ready", "1 once everything that existed is known", ["service"])


class Tenancy:
    """Directory, credentials, databases and metering of one service, with one lifespan.

    Nothing is opened before `run` (or `lifespan`) is entered, so it may be made at import.
    """

    def __init__(
        self,
        service: str,
        settings: TenancySettings,
        *,
        source: DirectorySource,
        databases: Databases | None = None,
        meter: bool = False,
        clock: Clock | None = None,
        identify: Sequence[Source | Resolver] = (),
        issuers: IssuerRegistry | None = None,
    ) -> None:
        """`databases` None is for a service without tables of tenants; `meter` is whether usage is recorded.

        `identify` are the credentials that are accepted, a company's own `Resolver`s among them, and `issuers` whose
        tokens are trusted beside the tenant service's; both are by default what the settings say.
        """
        self.service = service
        self.settings = settings
        self.clock = clock or SystemClock()
        self.directory = source.directory
        self.keys = source.keys if isinstance(source, StateSource) else KeySet()
        self.credentials = source.credentials if isinstance(source, StateSource) else CredentialStore()
        self._config = source.config if isinstance(source, ConfigSource) else ConfigStore()
        flags = source.flags if isinstance(source, ConfigSource) else FlagStore(self._config)
        self.features = Features(flags, self.directory, self.clock)
        self.meter_spool: Spool | None = None
        self._key_use = KeyUse(self.clock)
        self._source = source
        self._databases = databases
        self._redis = find_redis(settings)
        self.cache = TenantCache(cache_store(settings, service, self._redis))
        self.limiter = Limiter(
            service,
            self.directory,
            config=self._config,
            gate=FairGate(
                settings.max_in_flight, max_waiting=settings.max_waiting, wait=settings.queue_seconds, paced=True
            ),
            replicas=settings.replicas,
            shared=shared_buckets(settings, service, self._redis),
        )
        if databases is not None:
            databases.bulkhead = ConnectionShares(self.limiter.connections_of)
        self._meters = meter
        self._metering: MeteringClient | None = None
        self._entitlements: Entitlements | None = None
        self._tokens: ServiceTokens | None = None
        self._context_signer: ContextSigner | None = None
        self._accepted = tuple(identify) or settings.identify
        self._issuers = issuers if issuers is not None else StaticIssuers(settings.trusted_issuers)
        self._issuer_keys = IssuerKeyring(self._issuers, clock=self.clock)

    @classmethod
    def from_env(
        cls,
        service: str,
        *,
        meter: bool = False,
        follow_placement: bool = True,
        tenant_column: TenantColumn = TENANT_ID,
        identify: Sequence[Source | Resolver] = (),
    ) -> Self:
        """A tenancy on the directory and the databases that the environment names (`TENANTRY_…`, `<SERVICE>_…`).

        `TENANTRY_DIRECTORY` is kafka (the default, needs the extra `tenantry[kafka]`), sql, http or static.
        `tenant_column` is how the service's tables name their tenant. `follow_placement` is for product services,
        whose rows lie where a tenant's placement says; `identify` is that of the constructor. Raises pydantic's
        `ValidationError`, or `StartupRefused`, for what is missing.
        """
        settings = TenancySettings()
        return cls(
            service,
            settings,
            source=directory_source(DirectorySettings(), settings),
            databases=Databases(
                service,
                DatabaseSettings.from_env(service),
                follow_placement=follow_placement,
                tenant_column=tenant_column,
            ),
            meter=meter,
            identify=identify,
        )

    @property
    def databases(self) -> Databases:
        if self._databases is None:
            raise StartupRefused(f"the {self.service} service has no databases")
        return self._databases

    @property
    def entitlements(self) -> "Entitlements":
        """What tenants may use, while `run` lasts. Raises `StartupRefused` where `TENANTRY_ENTITLEMENTS` is off."""
        if self._entitlements is None:
            raise StartupRefused("TENANTRY_ENTITLEMENTS is off, or the tenancy does not run")
        return self._entitlements

    def requires(
        self, feature: str | None = None, *, quota: str | None = None, amount: int = 1
    ) -> Callable[[Callable[P, Awaitable[T]]], Callable[P, Awaitable[T]]]:
        """A decorator for coroutine functions: the tenant has `feature`, and `amount` of `quota` is left and is taken.

            @app.get("/v1/search")
            @tenancy.requires("search", quota="searches")
            async def search(…): …

        Of a route it is asked once the request is known to be valid. Raises `FeatureOff`, and what
        `Entitlements.check` raises.
        """
        from tenantry.entitlements._route import demanding  # noqa: PLC0415 - the extra

        return demanding(lambda: self.entitlements, feature, quota, amount)

    @property
    def tokens(self) -> ServiceTokens:
        """The service's own tokens, while `run` lasts. Raises `StartupRefused` where it has no credential."""
        if self._tokens is None:
            raise StartupRefused("TENANTRY_CLIENT_ID and TENANTRY_CLIENT_SECRET are not set")
        return self._tokens

    def client(self, service: str) -> httpx.AsyncClient:
        """A client of another service, while `run` lasts; whoever asks for it closes it.

        The service is one of `TENANTRY_SERVICES`, or `tenant`, which is where tokens come from unless that says else.
        Its calls carry this service's token, the request id and the trace, and inside a tenant's scope the signed
        tenant context. Raises `StartupRefused` where the service, or a credential for calling it, is not configured.
        """
        services = {_TENANT_SERVICE: self.settings.tenant_service_url, **self.settings.services}
        url = services.get(service)
        if not url or self.settings.client_id is None:
            raise StartupRefused(f"TENANTRY_SERVICES does not say where {service!r} is, or there is no credential")
        transport = ServiceTransport(self.tokens, self._signer(self.settings.client_id), services)
        return httpx.AsyncClient(base_url=url, transport=transport)

    @asynccontextmanager
    async def run(self) -> AsyncIterator[Self]:
        """Opens everything and closes it at the end; the directory catches up meanwhile (`directory.ready`).

        Raises `UnsafeRole`, a `StartupRefused`, where a database role could get around row level security.
        """
        async with AsyncExitStack() as stack:
            if self._redis is not None:
                stack.push_async_callback(self._redis.close)
                await stack.enter_async_context(running(self.cache.keep()))
            if self._databases is not None:
                stack.push_async_callback(self._databases.dispose)
                await self._databases.verify_roles()
            if self.settings.client_id is not None and self.settings.client_secret is not None:
                self._tokens = await stack.enter_async_context(
                    ServiceTokens(
                        self.settings.token_url,
                        self.settings.client_id,
                        self.settings.client_secret.get_secret_value(),
                        confirmation=self._signer(self.settings.client_id).thumbprint,
                        clock=self.clock,
                    )
                )
                if self.settings.identity == "tenantry":
                    tenant_service = await stack.enter_async_context(self.client(_TENANT_SERVICE))
                    telling = self._key_use.report(told_by(tenant_service), every=self.settings.key_use_seconds)
                    await stack.enter_async_context(running(telling))
            await stack.enter_async_context(self._issuer_keys.run())
            STALENESS.labels(self.service).set_function(lambda: self._source.lag_seconds)
            KNOWN.labels(self.service).set_function(lambda: len(self.directory))
            READY.labels(self.service).set_function(lambda: self.directory.ready)
            stack.callback(_forget_measures, self.service)
            stack.push_async_callback(self._source.stop)
            await stack.enter_async_context(running(self._source.start()))
            if self.settings.entitlements == "kafka":
                await stack.enter_async_context(self._entitled())
            if self._meters:
                await stack.enter_async_context(self._metered())
            yield self

    @asynccontextmanager
    async def lifespan(self, _: FastAPI) -> AsyncIterator[None]:
        """`run` as the lifespan of an application."""
        async with self.run():
            yield

    def install(
        self,
        app: FastAPI,
        *,
        public: Iterable[str] = (),
        operations: Mapping[str, Operation | None] | None = None,
        administrative: bool = False,
        meter_requests: str | None = None,
        costs: Mapping[str, Cost] | None = None,
    ) -> None:
        """Puts the middleware, problems, health and metrics in front of `app`; the last of its middlewares to be added.

        `public`, `operations` and `administrative` are those of `TenancyMiddleware`. `meter_requests` is the event type
        under which every request of a tenant is recorded, None for none. `costs` are those of single routes, in units
        of a tenant's rate, as in `{"POST /v1/events": by_length(65_536, undeclared=16)}`; others cost one.
        """
        app.state.tenancy = self
        ready: dict[str, ReadinessCheck] = {"directory": lambda: self.directory.ready}
        if self.settings.entitlements == "kafka":
            ready["entitlements"] = lambda: self._entitlements is not None and self._entitlements.ready
        if next(iter(self._issuers), None) is not None:
            ready["issuers"] = lambda: self._issuer_keys.ready
        add_operational_routes(app, ready)
        app.add_middleware(
            TenancyMiddleware,
            service=self.service,
            directory=self.directory,
            identifier=self.identifier(),
            public=public,
            operations=operations,
            administrative=administrative,
            recheck_seconds=self.settings.recheck_seconds,
            staleness=lambda: self._source.lag_seconds,
            max_staleness=self.settings.max_staleness_seconds,
            stale_writes=self.settings.stale_writes,
            region=self.settings.region,
            top_tenants=self.settings.metrics_top_tenants,
            limiting=RequestLimiting(self.limiter, costs),
            metering=None
            if meter_requests is None
            else RequestMetering(self._record, event_type=meter_requests, is_full=self._spool_is_full),
        )

    def identifier(self) -> Identifier:
        """A new identifier on this tenancy's directory, keys and credentials."""
        settings = self.settings
        return Identifier(
            directory=self.directory,
            tokens=self._verifier(),
            credentials=self.credentials,
            hosts=Hosts(
                base_domains=settings.base_domains, own=settings.hosts, trusted_proxies=settings.trusted_proxies
            ),
            identify=self._accepted,
            select=settings.select,
            audience=self.service,
            key_use=self._key_use,
            clock=self.clock,
        )

    def _signer(self, client_id: str) -> ContextSigner:
        if self._context_signer is None:
            self._context_signer = ContextSigner(client_id, clock=self.clock)
        return self._context_signer

    def _verifier(self) -> Verifier:
        own = None
        if self.settings.identity == "tenantry":
            own = TokenVerifier(self.keys, issuer=self.settings.issuer, audience=self.service, clock=self.clock)
            if isinstance(self._issuers, StaticIssuers) and not len(self._issuers):
                return own
        return ExternalVerifier(
            self._issuers,
            self._issuer_keys,
            self.directory,
            own=own,
            revocations=self.credentials.revocations,
            clock=self.clock,
        )

    def config(self, namespace: str) -> ConfigView:
        """What holds for the current tenant in a namespace, from local memory. Raises `NoTenant` without a tenant."""
        tenant = current_tenant()
        return self._config.view(tenant, self.directory.tier(tenant.tier), namespace)

    def branding(self) -> Branding:
        """The branding of the current tenant. Raises `NoTenant` without a tenant."""
        return branding_of(self.config(BRANDING))

    async def meter(
        self,
        type: str,  # noqa: A002 - the CloudEvents attribute
        *,
        value: Decimal | int | None = None,
        data: Mapping[str, Any] | None = None,
        time: datetime | None = None,
    ) -> None:
        """Records one event of the current tenant, where a crash does not lose it; `value` becomes `data.value`.

        `time` is the tenant's present unless it was fixed elsewhere, such as under the lock of the row that changed.
        Raises `NoTenant` without a tenant, `Unavailable` where the spool is full and set to refuse, and ValueError for
        what would not be counted (`MeteringClient.record`).
        """
        document = dict(data or {})
        if value is not None:
            document["value"] = value
        self._record(current_tenant(), type, document, time)

    @asynccontextmanager
    async def scope(self, tenant_id: UUID, operation: Operation = Operation.JOBS) -> AsyncIterator[Tenant]:
        """Work for a tenant outside a request: a job, a message, a script.

        Raises `TenantNotFound`, what `admit` raises where the tenant may not do `operation` now, and
        `TenantAlreadyBound` inside the scope of another tenant.
        """
        tenant = self.directory.get(tenant_id)
        if tenant is None or self.directory.is_purged(tenant_id):
            raise TenantNotFound("There is no such tenant.")
        check_residency(tenant, self.settings.region)
        admit(tenant, operation)
        with tenant_scope(tenant):
            yield tenant

    def _record(
        self,
        tenant: Tenant,
        type: str,  # noqa: A002
        data: Mapping[str, Any],
        time: datetime | None = None,
    ) -> None:
        if self._metering is None:
            raise Unavailable("Usage is not recorded at the moment.")
        self._metering.record(tenant, type, data, time=time)

    def _spool_is_full(self) -> bool:
        spool = self.meter_spool
        return spool is None or (self.settings.spool_on_full == "refuse" and spool.held_bytes >= spool.max_bytes)

    @asynccontextmanager
    async def _entitled(self) -> AsyncGenerator[None]:
        from tenantry.entitlements import (  # noqa: PLC0415 - the extra
            BalanceReader,
            BalanceStore,
            EntitledTenants,
            Entitlements,
            PlanStore,
        )
        from tenantry.events import KafkaSettings  # noqa: PLC0415 - the extra

        store, plans = BalanceStore(), PlanStore()
        reader = BalanceReader(KafkaSettings(), store, plans)
        self._entitlements = Entitlements(
            store,
            lag_seconds=lambda: reader.lag_seconds,
            max_staleness_seconds=self.settings.max_staleness_seconds,
            hold_seconds=self.settings.entitlements_hold_seconds,
            unknown=self.settings.entitlements_unknown,
            stale=self.settings.entitlements_stale,
            given=EntitledTenants(self.directory, plans, self.clock).terms,
        )
        try:
            async with running(reader.start()):
                yield
        finally:
            self._entitlements = None
            await reader.stop()

    @asynccontextmanager
    async def _metered(self) -> AsyncGenerator[None]:
        from tenantry.events import KafkaSettings, UsageProducer  # noqa: PLC0415 - the extra
        from tenantry.metering import MeteringClient, Shipper, Spool  # noqa: PLC0415 - the extra

        spool = Spool(
            self.settings.state_dir / self.service / "spool",
            self.settings.spool_max_bytes,
            self.settings.spool_on_full,
        )
        producer = UsageProducer(KafkaSettings())
        self.meter_spool = spool
        self._metering = MeteringClient(spool, self.service, self.clock, tier=self.directory.tier)
        try:
            await producer.start()
            async with running(Shipper(spool, producer).run()):
                yield
        finally:
            self._metering = self.meter_spool = None
            await producer.stop()
            spool.close()


def _forget_measures(service: str) -> None:
    for measure in (STALENESS, KNOWN, READY):
        with contextlib.suppress(KeyError):
            measure.remove(service)
