"""Limits as configuration: the namespace `limits`, in which a tenant may have other limits than its tier."""

from collections.abc import Iterable
from typing import Final

from tenantry._tenant import Tier
from tenantry.config._layers import Layer, LayerDocument

LIMITS: Final = "limits"


def with_limits_of(tier: Tier | None, layers: Iterable[LayerDocument]) -> tuple[LayerDocument, ...]:
    """`layers` of the namespace `limits`, the widest first, with what the tier says of limits as the tier's layer.

    Limits have no other layer of a tier: what holds for all its tenants stands in one place.
    """
    others = [layer for layer in layers if layer.layer is not Layer.TIER]
    if tier is not None:
        said = LayerDocument(
            layer=Layer.TIER, name=tier.name, namespace=LIMITS, version=tier.version, document=tier.limits
        )
        others.insert(sum(layer.layer is not Layer.TENANT for layer in others), said)
    return tuple(others)
