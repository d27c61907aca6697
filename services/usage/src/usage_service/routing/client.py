"""What the usage service asks of the tenant service."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import UUID

import httpx

from tenantry import TenancySettings, Unavailable
from tenantry.identity import ServiceTokens


class TenantService:
    """The tenant service, for this service's own credential."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self._client = client

    async def route(self, tenant_id: UUID, buckets: int) -> int:
        """The status of the answer. Raises Unavailable where none came."""
        try:
            answer = await self._client.put(f"/v1/tenants/{tenant_id}/routing", json={"buckets": buckets})
        except httpx.TransportError as error:
            raise Unavailable("The tenant service gives no answer.") from error
        return answer.status_code


@asynccontextmanager
async def tenant_service(settings: TenancySettings) -> AsyncIterator[TenantService | None]:
    """The service that the environment names; None without a credential: usage is then measured alone."""
    if settings.client_id is None or settings.client_secret is None:
        yield None
        return
    async with (
        ServiceTokens(settings.token_url, settings.client_id, settings.client_secret.get_secret_value()) as tokens,
        httpx.AsyncClient(base_url=settings.tenant_service_url, auth=tokens.auth("tenant"), timeout=10.0) as client,
    ):
        yield TenantService(client)
