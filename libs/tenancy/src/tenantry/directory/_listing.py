"""Takes what a source lists into the directory, without ever believing more than it says."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec
import structlog

from tenantry._directory import LocalDirectory
from tenantry._tenant import Tenant, TenantId, Tier
from tenantry.directory._records import TenantFields

log = structlog.get_logger(__name__)

# A hundred thousand records take a second: others get their turn in between.
_RECORDS_AT_ONCE: Final = 500
_FAULTS_SHOWN: Final = 3


class InvalidListing(Exception):
    """A listing that is not believed; what was known before stays."""


class Listing(msgspec.Struct, frozen=True, kw_only=True):
    """What a source has answered.

    `complete` says that there are no other tenants: whoever is not in it has gone. One that is not complete says only
    what has changed. `unchanged` is the answer that nothing has.
    """

    records: Sequence[Mapping[str, Any]] = ()
    complete: bool = True
    unchanged: bool = False
    tiers: Sequence[Tier] | None = None


class ListedTenants:
    """Puts listings into a directory. One event loop feeds and reads it."""

    def __init__(self, directory: LocalDirectory, fields: TenantFields) -> None:
        self._directory = directory
        self._fields = fields

    async def take(self, listing: Listing) -> int:
        """Take in a listing and return how many of its records could not be read, which are left as they were known.

        Raises `InvalidListing` for one that would empty a directory that holds tenants: a query on the wrong schema, or
        a table that is being loaded, is more likely than a company without tenants.
        """
        if listing.unchanged:
            return 0
        if listing.complete and not listing.records and len(self._directory):
            raise InvalidListing("the listing is empty, and tenants are known")
        for tier in listing.tiers or ():
            self._take_tier(tier)
        tenants, faults = await self._read(listing.records)
        faults += self._drop_doubles(tenants, others_stay=not listing.complete or bool(faults))
        for number, tenant in enumerate(tenants.values()):
            self._take_tenant(tenant)
            if number % _RECORDS_AT_ONCE == 0:
                await asyncio.sleep(0)
        # With a record that nobody could read it is not known who is missing.
        if listing.complete and not faults:
            for gone in [tenant.id for tenant in self._directory if tenant.id not in tenants]:
                self._directory.forget(gone)
        if faults:
            log.error("directory_records_refused", count=len(faults), first=faults[:_FAULTS_SHOWN])
        return len(faults)

    async def _read(self, records: Sequence[Mapping[str, Any]]) -> tuple[dict[TenantId, Tenant], list[str]]:
        tenants: dict[TenantId, Tenant] = {}
        faults: list[str] = []
        for number, record in enumerate(records):
            try:
                tenant = self._fields.tenant(record)
            except (ValueError, TypeError, AttributeError) as error:
                faults.append(f"record {number}: {error}")
                continue
            if tenant.id in tenants:
                faults.append(f"record {number}: the tenant is listed twice")
                continue
            tenants[tenant.id] = tenant
            if number % _RECORDS_AT_ONCE == 0:
                await asyncio.sleep(0)
        return tenants, faults

    def _drop_doubles(self, tenants: dict[TenantId, Tenant], *, others_stay: bool) -> list[str]:
        """Takes out whoever claims what another tenant has: two tenants under one name must never be one.

        `others_stay` is whether tenants of whom this listing says nothing keep what they have.
        """
        owners: dict[tuple[str, str], TenantId] = {}
        doubles: dict[TenantId, str] = {}
        for tenant in tenants.values():
            for claim in _claims(tenant):
                owner = self._holder(claim, tenants, others_stay=others_stay) or owners.setdefault(claim, tenant.id)
                if owner != tenant.id:
                    doubles[tenant.id] = f"{claim[0]} of {tenant.id} is that of {owner}"
        for tenant_id in doubles:
            del tenants[tenant_id]
        return list(doubles.values())

    def _holder(
        self, claim: tuple[str, str], listed: Mapping[TenantId, Tenant], *, others_stay: bool
    ) -> TenantId | None:
        """The tenant that has it already and keeps it."""
        if not len(self._directory):
            return None
        kind, value = claim
        find = {"slug": self._directory.by_slug, "domain": self._directory.by_domain}.get(kind, self._directory.resolve)
        known = find(value)
        if known is None:
            return None
        keeps = claim in _claims(listed[known.id]) if known.id in listed else others_stay
        return known.id if keeps else None

    def _take_tenant(self, tenant: Tenant) -> None:
        known = self._directory.get(tenant.id)
        if known is None:
            self._directory.upsert(tenant)
        elif msgspec.structs.replace(tenant, version=known.version) != known:
            self._directory.upsert(msgspec.structs.replace(tenant, version=known.version + 1))

    def _take_tier(self, tier: Tier) -> None:
        known = self._directory.tier(tier.name)
        if known is None or msgspec.structs.replace(tier, version=known.version) != known:
            self._directory.upsert_tier(
                msgspec.structs.replace(tier, version=1 if known is None else known.version + 1)
            )


def _claims(tenant: Tenant) -> list[tuple[str, str]]:
    claims = [("slug", tenant.slug), *(("domain", name) for name in tenant.domains)]
    return claims if tenant.external_id is None else [*claims, ("external_id", tenant.external_id)]
