"""The features that not every tenant has: asked by OpenFeature, answered by the tenancy from local memory.

An operator gives a flag to some with `tenantry flags set search-beginnings --percentage 10`; a tenant gets one of its
own, or none, by its namespace `features`. Where nobody has defined it, it is off.
"""

from typing import Annotated, Final

from fastapi import Depends
from openfeature import api
from openfeature.client import OpenFeatureClient
from starlette.requests import HTTPConnection

from tenantry import Tenancy
from tenantry.features.openfeature import TenantryProvider

SEARCH_BEGINNINGS: Final = "search-beginnings"
"""A search finds words by their beginnings: `invo` finds `invoice`."""

_DOMAIN: Final = "app"


def open_flags(tenancy: Tenancy) -> OpenFeatureClient:
    """A client whose flags are those of the current tenant. Providers are of the process: the last tenancy counts."""
    api.set_provider_and_wait(TenantryProvider(tenancy.features), domain=_DOMAIN)
    return api.get_client(domain=_DOMAIN)


async def _flags(connection: HTTPConnection) -> OpenFeatureClient:
    flags: OpenFeatureClient = connection.app.state.flags
    return flags


Flags = Annotated[OpenFeatureClient, Depends(_flags)]
