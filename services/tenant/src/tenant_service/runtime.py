"""What a process of the tenant service is made of: the one place where it is put together."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from tenant_service.config.namespaces import publish_unpublished_schemas
from tenant_service.domains.resolver import DnsResolver, TxtResolver
from tenant_service.identity.api_keys import written_by
from tenant_service.identity.clients import put_clients, read_bootstrap
from tenant_service.identity.secrets import MasterKey
from tenant_service.identity.signing_keys import ensure_signing_key
from tenant_service.identity.tokens import Issuer
from tenant_service.local_state import LocalState
from tenant_service.settings import SERVICE, TenantSettings
from tenant_service.stores.service import ensure_default_store
from tenant_service.tiers.service import publish_unpublished_tiers
from tenant_service.transactions import Transactions
from tenantry import Clock, StartupRefused, TenancySettings
from tenantry.database import Databases, DatabaseSettings, UnsafeRole
from tenantry.identity import Hosts, Identifier, KeyUse, TokenVerifier
from tenantry.offboarding import ExportSettings

if TYPE_CHECKING:
    from obstore.store import ObjectStore


@dataclass(frozen=True, slots=True)
class Runtime:
    """The parts that the API's requests use."""

    settings: TenantSettings
    platform: TenancySettings
    clock: Clock
    transactions: Transactions
    state: LocalState
    master_key: MasterKey
    resolver: TxtResolver
    tokens: TokenVerifier
    identifier: Identifier
    exports: "ObjectStore | None" = None

    @property
    def issuer(self) -> Issuer:
        return Issuer(self.settings.base_url, self.state.signer)

    @classmethod
    @asynccontextmanager
    async def start(
        cls,
        settings: TenantSettings,
        database_settings: DatabaseSettings,
        clock: Clock,
        resolver: TxtResolver | None = None,
        platform: TenancySettings | None = None,
    ) -> AsyncIterator[Self]:
        """Check and load everything, then follow changes while the block lasts. `resolver` takes the place of DNS.

        `platform` is what all services have in common; by default the environment says it.
        Raises `StartupRefused` for a missing or wrong master key, a bootstrap file or an export store that cannot be
        used, or a database role that may do more than it should.
        """
        if platform is None:
            platform = TenancySettings(issuer=settings.base_url)
        master_key = MasterKey.load(
            settings.master_key,
            settings.master_key_file,
            settings.previous_master_key,
            settings.previous_master_key_file,
        )
        try:
            dns = resolver or DnsResolver(settings.dns_servers)
        except ValueError as error:
            raise StartupRefused(f"TENANT_DNS_SERVERS: {error}") from None
        exports = ExportSettings(export_url=settings.export_url).store()
        clients = None if settings.bootstrap_file is None else read_bootstrap(settings.bootstrap_file)
        async with open_databases(database_settings) as databases:
            state = LocalState(master_key, clock)
            transactions = Transactions(databases, state.apply)
            now = clock.now()
            async with transactions.begin() as session:
                if clients is not None:
                    await put_clients(session, clients, now=now)
                await ensure_signing_key(session, master_key, now=now)
                await publish_unpublished_tiers(session)
                await ensure_default_store(session, settings.default_store, settings.default_region, now=now)
                await publish_unpublished_schemas(session)
            async with transactions.begin() as session:
                await state.load(session)
            key_use = KeyUse(clock)
            following = asyncio.create_task(state.follow(transactions, system_url(database_settings)))
            telling = asyncio.create_task(key_use.report(written_by(transactions), every=platform.key_use_seconds))
            try:
                tokens = TokenVerifier(state.keys, issuer=settings.base_url, audience=SERVICE, clock=clock)
                identifier = Identifier(
                    directory=state.directory,
                    tokens=tokens,
                    credentials=state.credentials,
                    hosts=Hosts(
                        base_domains=settings.base_domains, own=platform.hosts, trusted_proxies=platform.trusted_proxies
                    ),
                    select=platform.select,
                    audience=SERVICE,
                    key_use=key_use,
                    clock=clock,
                )
                yield cls(settings, platform, clock, transactions, state, master_key, dns, tokens, identifier, exports)
            finally:
                for task in (telling, following):
                    task.cancel()
                    with suppress(asyncio.CancelledError):
                        await task


@asynccontextmanager
async def open_databases(settings: DatabaseSettings) -> AsyncIterator[Databases]:
    """The service's databases, disposed when the block ends.

    Raises `StartupRefused` where one of its roles could do more than it should.
    """
    databases = Databases(SERVICE, settings)
    try:
        await databases.verify_roles()
    except UnsafeRole as error:
        await databases.dispose()
        raise StartupRefused(str(error)) from error
    try:
        yield databases
    finally:
        await databases.dispose()


def system_url(settings: DatabaseSettings) -> str:
    """The URL of the system role. Raises `StartupRefused` where it is not set."""
    if settings.system_database_url is None:
        raise StartupRefused("TENANT_SYSTEM_DATABASE_URL is not set")
    return settings.system_database_url
