"""What the tenant service would have published: tenants, their tier, credentials, and other routing now and then."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from uuid import UUID

import msgspec
from aiokafka import AIOKafkaProducer

from tenantry import Routing, Tenant, TenantId, TenantStatus, Tier
from tenantry.events import KafkaSettings
from tenantry.identity import Credential, Scope, secret_hash

_BUCKETS = (1, 2, 4, 12)
_BORN = datetime(2026, 1, 1, tzinfo=UTC)


class State:
    """The documents of some tenants as they are now; those of the first ones, the `hot`, are spread from the start."""

    def __init__(self, kafka: KafkaSettings, tenants: Sequence[str], *, hot: int) -> None:
        self._kafka = kafka
        self._tenants = [
            Tenant(
                id=TenantId(UUID(tenant_id)),
                slug=f"chaos-{number}",
                name="Chaos",
                status=TenantStatus.ACTIVE,
                tier="chaos",
                version=1,
                created_at=_BORN,
                routing=Routing(buckets=_BUCKETS[number % len(_BUCKETS)] if number < hot else 1),
            )
            for number, tenant_id in enumerate(tenants)
        ]

    async def publish_all(self, *, operator: str, service: str) -> None:
        """`operator` and `service` are the secrets of their keys."""
        records: list[tuple[str, str, object]] = [("platform.state.v1", "tier/chaos", Tier(name="chaos", version=1))]
        for name, secret, scope in (("operator", operator, Scope.PLATFORM), ("service", service, Scope.SERVICE)):
            credential = Credential(
                id=name, kind="api_key", hash=secret_hash(secret), subject=name, scopes=frozenset({scope})
            )
            records.append(("tenant.credentials.v1", name, credential))
        records += [("tenant.state.v1", str(tenant.id), tenant) for tenant in self._tenants]
        await self._publish(records)

    async def reroute(self, number: int, choice: int) -> None:
        """A tenant's events get another number of keys."""
        tenant = self._tenants[number]
        others = [each for each in _BUCKETS if each != tenant.routing.buckets]
        routing = Routing(buckets=others[choice % len(others)])
        tenant = msgspec.structs.replace(tenant, routing=routing, version=tenant.version + 1)
        self._tenants[number] = tenant
        await self._publish([("tenant.state.v1", str(tenant.id), tenant)])

    async def _publish(self, records: Sequence[tuple[str, str, object]]) -> None:
        producer = AIOKafkaProducer(**self._kafka.client_options(), acks="all")
        await producer.start()
        try:
            for name, key, value in records:
                topic = self._kafka.topic(name)
                await producer.send_and_wait(topic, key=key.encode(), value=msgspec.json.encode(value))
        finally:
            await producer.stop()
