"""The configuration of everybody in local memory, whatever feeds it."""

from collections import OrderedDict
from collections.abc import Iterator
from typing import Final

from tenantry._tenant import Tenant, Tier
from tenantry.config._layers import Layer, LayerDocument, NamespaceSchema
from tenantry.config._limits import LIMITS, with_limits_of
from tenantry.config._merge import Constraint, Effective, resolve
from tenantry.config._view import ConfigView

CACHED_DOCUMENTS: Final = 4096

_Versions = tuple[int, ...]


class ConfigStore:
    """Layers and schemas of every namespace. Not thread-safe: one event loop feeds and reads it.

    Merged documents are kept for as long as the versions that they were merged from are the present ones. Tenants
    without a document of their own share that of their region and tier.
    """

    def __init__(self, *, cached_documents: int = CACHED_DOCUMENTS) -> None:
        self.version = 0
        """Grows with every change, so that what was derived from the store can tell that it is stale."""
        self._layers: dict[tuple[Layer, str, str], LayerDocument] = {}
        self._schemas: dict[str, NamespaceSchema] = {}
        self._cached: OrderedDict[tuple[str, str, str, str], tuple[_Versions, Effective]] = OrderedDict()
        self._cached_documents = cached_documents

    def upsert(self, document: LayerDocument) -> bool:
        """Take in `document` unless its version is known already. Returns whether anything changed."""
        place = (document.layer, document.name, document.namespace)
        known = self._layers.get(place)
        if known is not None and known.version >= document.version:
            return False
        self._layers[place] = document
        self.version += 1
        return True

    def remove(self, layer: Layer, name: str, namespace: str) -> None:
        """Forget what a layer says, after its tombstone."""
        if self._layers.pop((layer, name, namespace), None) is not None:
            self.version += 1

    def places(self) -> set[tuple[Layer, str, str]]:
        """Layer, name and namespace of everything that is said."""
        return set(self._layers)

    def says(self, layer: Layer, name: str, namespace: str) -> bool:
        """Whether a layer says something about the namespace."""
        return (layer, name, namespace) in self._layers

    def upsert_schema(self, schema: NamespaceSchema) -> bool:
        known = self._schemas.get(schema.namespace)
        if known is not None and known.version >= schema.version:
            return False
        self._schemas[schema.namespace] = schema
        self.version += 1
        return True

    def schema(self, namespace: str) -> NamespaceSchema | None:
        return self._schemas.get(namespace)

    def layers(self, tenant: Tenant, namespace: str) -> tuple[LayerDocument, ...]:
        """What is said about the namespace for this tenant, the widest layer first."""
        return tuple(self._chain(tenant, namespace))

    def effective(self, tenant: Tenant, tier: Tier | None, namespace: str) -> Effective:
        """What holds for the tenant, whose tier is `tier`. The result is shared: do not change it."""
        layers = self.layers(tenant, namespace)
        if namespace == LIMITS:
            layers = with_limits_of(tier, layers)
        own = layers[-1].name if layers and layers[-1].layer is Layer.TENANT else ""
        key = (own, tenant.region or "", tenant.tier, namespace)
        # Which layers there are and how new each of them is; the tier is there for its constraint.
        versions = (
            0 if tier is None else tier.version,
            *(part for layer in layers for part in (_RANK[layer.layer], layer.version)),
        )
        cached = self._cached.get(key)
        if cached is not None and cached[0] == versions:
            self._cached.move_to_end(key)
            return cached[1]
        effective = resolve(layers, constraint_of(tier, namespace))
        self._cached[key] = (versions, effective)
        self._cached.move_to_end(key)
        if len(self._cached) > self._cached_documents:
            self._cached.popitem(last=False)
        return effective

    def view(self, tenant: Tenant, tier: Tier | None, namespace: str) -> ConfigView:
        """What holds for the tenant, to be read by code."""
        return ConfigView(namespace, self.effective(tenant, tier, namespace))

    def _chain(self, tenant: Tenant, namespace: str) -> Iterator[LayerDocument]:
        for layer, name in chain_of(tenant):
            found = self._layers.get((layer, name, namespace))
            if found is not None:
                yield found


_RANK: Final = {layer: rank for rank, layer in enumerate(Layer)}


def chain_of(tenant: Tenant) -> tuple[tuple[Layer, str], ...]:
    """The layers that speak for a tenant and their names, the widest first."""
    region = () if tenant.region is None else ((Layer.REGION, tenant.region),)
    return ((Layer.PLATFORM, ""), *region, (Layer.TIER, tenant.tier), (Layer.TENANT, str(tenant.id)))


def constraint_of(tier: Tier | None, namespace: str) -> Constraint | None:
    """What the tier forces in a namespace, None where it forces nothing."""
    patch = None if tier is None else tier.constraints.get(namespace)
    return Constraint(tier.name, tier.version, patch) if tier is not None and isinstance(patch, dict) else None
