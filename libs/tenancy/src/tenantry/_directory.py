"""Who the tenants are: look-ups in local memory, whatever feeds them."""

from collections.abc import Iterable, Iterator
from typing import Protocol, Self
from uuid import UUID

from tenantry._tenant import Tenant, TenantId, TenantStatus, Tier


class TenantDirectory(Protocol):
    """Synchronous look-ups in local state. Sources: `tenant.state.v1`, a company's own table, HTTP, a fixed list."""

    def __len__(self) -> int:
        """How many tenants are known."""
        ...

    def __iter__(self) -> Iterator[Tenant]:
        """Every tenant that is known, in no order."""
        ...

    @property
    def ready(self) -> bool:
        """Whether the directory has seen everything that existed when it started. Until then, nobody is served."""
        ...

    @property
    def version(self) -> int:
        """Grows with every change, so that what was derived from the directory can tell that it is stale."""
        ...

    def get(self, tenant_id: UUID) -> Tenant | None: ...

    def resolve(self, reference: str) -> Tenant | None:
        """The tenant with this id (UUID text in any case) or this external id."""
        ...

    def by_slug(self, slug: str) -> Tenant | None: ...

    def by_domain(self, name: str) -> Tenant | None:
        """The tenant that has proven that this host name is its own; `name` in lower case, without a final dot."""
        ...

    def tier(self, name: str) -> Tier | None: ...

    def is_purged(self, tenant_id: UUID) -> bool:
        """Whether this id belonged to a tenant that is gone for ever; its late events are dropped."""
        ...


class LocalDirectory:
    """The directory's indexes in memory. Not thread-safe: one event loop feeds and reads it."""

    def __init__(self, *, ready: bool = False) -> None:
        self.ready = ready
        self.version = 0
        self._tenants: dict[UUID, Tenant] = {}
        self._by_external_id: dict[str, Tenant] = {}
        self._by_slug: dict[str, Tenant] = {}
        self._by_domain: dict[str, Tenant] = {}
        self._by_text: dict[str, Tenant] = {}
        self._tiers: dict[str, Tier] = {}
        self._purged: set[UUID] = set()

    @classmethod
    def of(cls, tenants: Iterable[Tenant], tiers: Iterable[Tier] = ()) -> Self:
        """A directory that knows exactly these, ready at once."""
        directory = cls(ready=True)
        for tier in tiers:
            directory.upsert_tier(tier)
        for tenant in tenants:
            directory.upsert(tenant)
        return directory

    def __len__(self) -> int:
        return len(self._tenants)

    def __iter__(self) -> Iterator[Tenant]:
        return iter(self._tenants.values())

    def get(self, tenant_id: UUID) -> Tenant | None:
        return self._tenants.get(tenant_id)

    def resolve(self, reference: str) -> Tenant | None:
        # Canonical text first: it is what nearly every event and token carries, and costs one look-up.
        known = self._by_text.get(reference) or self._by_external_id.get(reference)
        if known is not None:
            return known
        try:
            tenant_id = UUID(reference)
        except ValueError:
            return None
        # Only the case may differ: UUID() also takes braces, missing hyphens and the digits of other scripts.
        return self._tenants.get(tenant_id) if str(tenant_id) == reference.lower() else None

    def by_slug(self, slug: str) -> Tenant | None:
        return self._by_slug.get(slug)

    def by_domain(self, name: str) -> Tenant | None:
        return self._by_domain.get(name)

    def tier(self, name: str) -> Tier | None:
        return self._tiers.get(name)

    def is_purged(self, tenant_id: UUID) -> bool:
        return tenant_id in self._purged

    def upsert(self, tenant: Tenant) -> bool:
        """Take in `tenant` unless its version is known already. Returns whether anything changed."""
        known = self._tenants.get(tenant.id)
        if known is not None and known.version >= tenant.version:
            return False
        # From the first moment of a purge there is no way back, and what comes in late must not be stored again.
        if tenant.status in {TenantStatus.PURGING, TenantStatus.PURGED}:
            self._purged.add(tenant.id)
        else:
            # The newest word counts: a tombstone that nobody should have written is taken back by a later document.
            self._purged.discard(tenant.id)
        if known is not None:
            self._unindex(known)
        self._tenants[tenant.id] = tenant
        self._by_text[str(tenant.id)] = tenant
        self._by_slug[tenant.slug] = tenant
        for domain in tenant.domains:
            self._by_domain[domain] = tenant
        if tenant.external_id is not None:
            self._by_external_id[tenant.external_id] = tenant
        self.version += 1
        return True

    def remove(self, tenant_id: UUID) -> None:
        """Forget a tenant after its tombstone; its id stays known as purged."""
        self._purged.add(tenant_id)
        self.forget(tenant_id)

    def forget(self, tenant_id: UUID) -> None:
        """A tenant that its source does not list any more; it may come back."""
        known = self._tenants.pop(TenantId(tenant_id), None)
        if known is not None:
            self._unindex(known)
            self.version += 1

    def upsert_tier(self, tier: Tier) -> bool:
        known = self._tiers.get(tier.name)
        if known is not None and known.version >= tier.version:
            return False
        self._tiers[tier.name] = tier
        self.version += 1
        return True

    def _unindex(self, tenant: Tenant) -> None:
        self._by_text.pop(str(tenant.id), None)
        # What another tenant has by now is that tenant's, whichever document comes first.
        if self._by_slug.get(tenant.slug) is tenant:
            del self._by_slug[tenant.slug]
        for domain in tenant.domains:
            if self._by_domain.get(domain) is tenant:
                del self._by_domain[domain]
        if tenant.external_id is not None and self._by_external_id.get(tenant.external_id) is tenant:
            del self._by_external_id[tenant.external_id]
