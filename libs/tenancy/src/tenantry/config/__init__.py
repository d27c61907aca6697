"""Layered configuration: what platform, region, tier and tenant say, merged, with where each value came from."""

from tenantry.config._branding import BRANDING, READABLE_CONTRAST, Branding, Colours, Logo, branding_of, contrast
from tenantry.config._layers import Layer, LayerDocument, NamespaceSchema, layer_key, parse_platform_key
from tenantry.config._limits import LIMITS, with_limits_of
from tenantry.config._merge import (
    CONSTRAINT,
    SECRET,
    Constraint,
    Difference,
    Effective,
    Source,
    differences,
    is_secret,
    merge,
    resolve,
    same,
)
from tenantry.config._pointers import join, split
from tenantry.config._store import ConfigStore, chain_of, constraint_of
from tenantry.config._view import ConfigView

__all__ = [
    "BRANDING",
    "CONSTRAINT",
    "LIMITS",
    "READABLE_CONTRAST",
    "SECRET",
    "Branding",
    "Colours",
    "ConfigStore",
    "ConfigView",
    "Constraint",
    "Difference",
    "Effective",
    "Layer",
    "LayerDocument",
    "Logo",
    "NamespaceSchema",
    "Source",
    "branding_of",
    "chain_of",
    "constraint_of",
    "contrast",
    "differences",
    "is_secret",
    "join",
    "layer_key",
    "merge",
    "parse_platform_key",
    "resolve",
    "same",
    "split",
    "with_limits_of",
]
