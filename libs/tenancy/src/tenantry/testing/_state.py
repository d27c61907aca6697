"""What a service knows of tenants, keys and credentials, given by the test instead of the state topics."""

from collections.abc import Iterable, Mapping
from typing import Any

from tenantry import LocalDirectory, Tenant
from tenantry.config import ConfigStore
from tenantry.features import FlagStore
from tenantry.identity import Credential, CredentialStore, KeySet, new_api_key, secret_hash


class GivenState:
    """A `StateSource` that knows everything from the start."""

    def __init__(self, tenants: Iterable[Tenant] = (), jwks: Mapping[str, Any] | None = None) -> None:
        self.directory = LocalDirectory.of(tenants)
        self.keys = KeySet(jwks)
        self.credentials = CredentialStore()
        self.config = ConfigStore()
        self.flags = FlagStore(self.config)
        self.lag_seconds = 0.0

    async def start(self) -> None:
        """Nothing to wait for."""

    async def stop(self) -> None:
        """Nothing to let go of."""

    def key(self, *scopes: str, tenant: Tenant | None = None) -> dict[str, str]:
        """Headers with a new API key, of a tenant or of none."""
        secret = new_api_key()
        self.credentials.upsert(
            Credential(
                id=secret_hash(secret),
                kind="api_key",
                hash=secret_hash(secret),
                tenant_id=None if tenant is None else tenant.id,
                subject="machine",
                scopes=frozenset(scopes),
            )
        )
        return {"Authorization": f"Bearer {secret}"}
