"""What the tenant service's own API knows by heart: tenants, tiers, credentials and keys, from its own database.

The other services get the same from Kafka. This one owns the truth and reads it, so that signing in, suspending and
asking for tokens go on while Kafka is away. Changes of other processes arrive by NOTIFY, and everything is read again
after a connection was lost.
"""

import asyncio
import json
import time
from collections.abc import Iterable, Sequence
from uuid import UUID

import structlog
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from tenant_service.config.local_state import LocalConfig
from tenant_service.identity import api_keys
from tenant_service.identity.secrets import MasterKey
from tenant_service.identity.signing_keys import Signer, load_jwks, load_signer
from tenant_service.listening import CHECK_SECONDS, listen, until_it_works
from tenant_service.models import TenantRow, TestClockRow, TierRow
from tenant_service.publication import Change, CredentialRevoked, KeySetChanged
from tenant_service.sessions import service as sessions
from tenant_service.support import service as support
from tenant_service.tenants.document import document
from tenant_service.tiers.repository import tier_document
from tenant_service.transactions import CHANGE_CHANNEL, EVERYTHING, Transactions
from tenantry import Clock, LocalDirectory, Tenant, TenantClock, Tier
from tenantry.identity import Credential, CredentialStore, KeySet

_log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


class LocalState:
    """The state that requests are checked against. One event loop feeds and reads it."""

    def __init__(self, master_key: MasterKey, clock: Clock) -> None:
        self.directory = LocalDirectory()
        self.keys = KeySet()
        self.credentials = CredentialStore(clock)
        self.signer = Signer([])
        self.configuration = LocalConfig()
        self._master_key = master_key
        self._clock = clock
        self._credential_ids: set[str] = set()
        self._stale: set[str] = set()
        self._changed = asyncio.Event()
        self._hears = False
        self._deaf_since: float | None = None

    @property
    def lag_seconds(self) -> float:
        """How old what is known here may be: 0 while changes of other processes arrive."""
        return 0.0 if self._deaf_since is None else time.monotonic() - self._deaf_since

    def apply(self, changes: Sequence[Change]) -> None:
        """Take in what this process has just committed."""
        for change in changes:
            if isinstance(change, Tenant):
                self.directory.upsert(change)
            elif isinstance(change, Tier):
                self.directory.upsert_tier(change)
            elif isinstance(change, Credential):
                self._accept(change)
            elif isinstance(change, CredentialRevoked):
                self._refuse(change.id)
            elif isinstance(change, KeySetChanged):
                self.keys.replace(dict(change.jwks))
            else:
                self.configuration.apply(change)

    async def load(self, session: AsyncSession) -> None:
        """Read everything. Raises `MasterKeyError` where the signing keys cannot be decrypted."""
        tenants = await session.stream(_TENANTS.execution_options(yield_per=1000))
        async for row, clock in tenants:
            self._take(row, clock)
        for tier in await session.scalars(select(TierRow)):
            self.directory.upsert_tier(tier_document(tier))
        await self._load_credentials(session)
        await self._load_keys(session)
        await self.configuration.load(session)
        self.directory.ready = True

    async def follow(self, transactions: Transactions, dsn: str) -> None:
        """Keep up with the other processes until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(listen(dsn, CHANGE_CHANNEL, self._notified, self._connected, self._lost))
            tasks.create_task(self._refresh(transactions))

    def _connected(self) -> None:
        self._hears = True
        self._notified(f'["{EVERYTHING}"]')

    def _lost(self) -> None:
        self._hears = False
        if self._deaf_since is None:
            self._deaf_since = time.monotonic() - CHECK_SECONDS

    def _notified(self, payload: str) -> None:
        self._stale.update(json.loads(payload))
        self._changed.set()

    async def _refresh(self, transactions: Transactions) -> None:
        while True:
            await self._changed.wait()
            self._changed.clear()
            keys, self._stale = [key for key in self._stale if not self._knows(key)], set()
            if not keys:
                continue
            async for attempt in until_it_works("refresh of local state"):
                with attempt:
                    async with transactions.begin() as session:
                        await self._reload(session, keys)
            if EVERYTHING in keys and self._hears:
                self._deaf_since = None

    def _knows(self, key: str) -> bool:
        """Whether the change is one of this process, or has come in with a later one."""
        kind, _, name = key.partition(":")
        if kind != "tenant":
            return False
        tenant_id, version = _tenant_of(name)
        known = self.directory.get(tenant_id)
        return known is not None and known.version >= version

    async def _reload(self, session: AsyncSession, keys: Iterable[str]) -> None:
        if EVERYTHING in keys:
            await self.load(session)
            return
        by_kind: dict[str, list[str]] = {}
        for key in keys:
            kind, _, name = key.partition(":")
            by_kind.setdefault(kind, []).append(name)
        if tenant_ids := by_kind.get("tenant"):
            statement = _TENANTS.where(TenantRow.id.in_({_tenant_of(name)[0] for name in tenant_ids}))
            for row, clock in await session.execute(statement):
                self._take(row, clock)
        if tiers := by_kind.get("tier"):
            for tier in await session.scalars(select(TierRow).where(TierRow.name.in_(tiers))):
                self.directory.upsert_tier(tier_document(tier))
        if credential_ids := by_kind.get("credential"):
            await self._load_credentials(session, credential_ids)
        if "keys" in by_kind:
            await self._load_keys(session)
        await self.configuration.reload(session, by_kind.get("config", ()))

    def _take(self, row: TenantRow, clock: TestClockRow | None) -> None:
        bound_to = None if clock is None else TenantClock(id=clock.id, now=clock.now)
        self.directory.upsert(document(row, bound_to))

    async def _load_credentials(self, session: AsyncSession, ids: Sequence[str] | None = None) -> None:
        """Read these credentials, or all; one that is read for and not found is not accepted any more."""
        now = self._clock.now()
        wanted = None if ids is None else [UUID(text) for text in ids]
        live = [
            *await api_keys.live_credentials(session, now=now, ids=wanted),
            *await sessions.live_credentials(session, now=now, ids=wanted),
            *await support.live_credentials(session, now=now, ids=wanted),
        ]
        for gone in set(self._credential_ids if ids is None else ids).difference(each.id for each in live):
            self._refuse(gone)
        for credential in live:
            self._accept(credential)

    async def _load_keys(self, session: AsyncSession) -> None:
        now = self._clock.now()
        jwks, _ = await load_jwks(session, now=now)
        self.keys.replace(jwks)
        self.signer = await load_signer(session, self._master_key, now=now)

    def _accept(self, credential: Credential) -> None:
        self._credential_ids.add(credential.id)
        self.credentials.upsert(credential)

    def _refuse(self, credential_id: str) -> None:
        self._credential_ids.discard(credential_id)
        self.credentials.remove(credential_id)


_TENANTS = select(TenantRow, TestClockRow).outerjoin(TestClockRow, TestClockRow.id == TenantRow.test_clock_id)


def _tenant_of(name: str) -> tuple[UUID, int]:
    """The tenant of a notification and its version."""
    tenant_id, _, version = name.partition(":")
    return UUID(tenant_id), int(version)
