"""Whom configuration is about, and who writes it."""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy.ext.asyncio import AsyncSession

from tenant_service.audit import Actor
from tenant_service.config.places import Place
from tenant_service.identity.secrets import MasterKey
from tenant_service.models import TenantRow
from tenant_service.tenants.document import document as tenant_document
from tenant_service.tiers.repository import find_tier, tier_document
from tenantry import Tenant, TenantClock, Tier


@dataclass(frozen=True, slots=True)
class Writer:
    """Who writes, when, with which key, and on whose authority."""

    actor: Actor
    master_key: MasterKey
    now: datetime
    is_operator: bool = True


@dataclass(frozen=True, slots=True)
class Subject:
    """A tenant that configuration is asked for or written for."""

    tenant: Tenant
    tier: Tier

    def place(self, namespace: str) -> Place:
        return Place.of_tenant(self.tenant.id, namespace)


async def subject_of(session: AsyncSession, row: TenantRow, clock: TenantClock | None) -> Subject:
    """A tenant whom the caller may know of, with its tier."""
    return Subject(tenant_document(row, clock), tier_document(await find_tier(session, row.tier)))
