"""What one layer says about one namespace: the value of a record of `tenant.config.v1` or `platform.state.v1`."""

from enum import StrEnum
from typing import Any

import msgspec


class Layer(StrEnum):
    """Who says it, from the widest to the narrowest: a narrower layer wins."""

    PLATFORM = "platform"
    REGION = "region"
    TIER = "tier"
    TENANT = "tenant"


class LayerDocument(msgspec.Struct, frozen=True, kw_only=True):
    """A version of a layer's document. `name` is the region, the tier or the tenant's id, empty for the platform.

    A null in `document` says nothing: the wider layer's value holds. A secret is `{"$secret": {…}}`, never its value.
    """

    layer: Layer
    name: str = ""
    namespace: str
    version: int
    document: dict[str, Any]


class NamespaceSchema(msgspec.Struct, frozen=True, kw_only=True):
    """What a namespace may hold, as published on `platform.state.v1` under the key `config-schema/<namespace>`."""

    namespace: str
    version: int
    schema: dict[str, Any]
    writable_by: str = "tenant"
    """`operator` or `tenant`: who may write the layer of a tenant."""
    secret_readers: tuple[str, ...] = ()
    """The clients that may ask for the namespace's secrets."""


def layer_key(layer: Layer, name: str, namespace: str) -> str:
    """The key of a layer's record: on `tenant.config.v1` for tenants, on `platform.state.v1` for all others."""
    if layer is Layer.TENANT:
        return f"{name}/{namespace}"
    return "/".join(part for part in ("config", layer, name, namespace) if part)


def parse_platform_key(key: str) -> tuple[Layer, str, str]:
    """Layer, name and namespace of a key that `layer_key` has made for `platform.state.v1`. Raises ValueError."""
    match key.split("/"):
        case ["config", "platform", namespace]:
            return Layer.PLATFORM, "", namespace
        case ["config", ("region" | "tier") as layer, name, namespace]:
            return Layer(layer), name, namespace
    raise ValueError(f"{key!r} names no layer")
