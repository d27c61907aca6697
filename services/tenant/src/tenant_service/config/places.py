"""Where something is said: a namespace in a layer."""

from dataclasses import dataclass
from uuid import UUID

from tenantry.config import Layer, layer_key

PLATFORM_OWNER = UUID(int=0)


@dataclass(frozen=True, slots=True)
class Place:
    """`name` is the region, the tier or the tenant's id, empty for the platform."""

    layer: Layer
    name: str
    namespace: str

    @classmethod
    def of_tenant(cls, tenant_id: UUID, namespace: str) -> "Place":
        return cls(Layer.TENANT, str(tenant_id), namespace)

    @property
    def tenant_id(self) -> UUID | None:
        return UUID(self.name) if self.layer is Layer.TENANT else None

    @property
    def owner_id(self) -> UUID:
        """Whose data key its secrets are encrypted with."""
        return self.tenant_id or PLATFORM_OWNER

    @property
    def key(self) -> str:
        return layer_key(self.layer, self.name, self.namespace)
