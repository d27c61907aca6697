"""Directories without the tenant service: a company's own table of tenants, a list over HTTP, or a file.

The fourth source, the topics of the tenant service, is `tenantry.events.KafkaDirectory` (extra `tenantry[kafka]`).
"""

from typing import TYPE_CHECKING

from tenantry._exports import lazy_exports
from tenantry.directory._listing import InvalidListing, Listing
from tenantry.directory._polled import PolledDirectory, TenantListing
from tenantry.directory._records import TENANT_KEYS, TenantFields, id_of
from tenantry.directory._static import TenantFile

if TYPE_CHECKING:
    from tenantry.directory._http import TenantEndpoint
    from tenantry.directory._settings import DirectorySettings, directory_source
    from tenantry.directory._sql import TenantQuery

__all__ = [
    "TENANT_KEYS",
    "DirectorySettings",
    "InvalidListing",
    "Listing",
    "PolledDirectory",
    "TenantEndpoint",
    "TenantFields",
    "TenantFile",
    "TenantListing",
    "TenantQuery",
    "directory_source",
    "id_of",
]

__getattr__ = lazy_exports(
    __name__,
    {
        "_http": ("TenantEndpoint",),
        "_settings": ("DirectorySettings", "directory_source"),
        "_sql": ("TenantQuery",),
    },
)
