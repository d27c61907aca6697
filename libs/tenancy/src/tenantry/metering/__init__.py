"""Metering from inside a service: events spooled to disk before the response, shipped to Kafka after it.

And lines of files that others wrote, read as usage.
"""

from typing import TYPE_CHECKING

from tenantry._exports import lazy_exports
from tenantry.metering._lines import AccessLine, UnreadableLine, read_access_line, read_timestamp

if TYPE_CHECKING:
    from tenantry.metering._client import MeteringClient
    from tenantry.metering._shipper import Publisher, Shipper
    from tenantry.metering._spool import Spool, SpoolFull

__all__ = [
    "AccessLine",
    "MeteringClient",
    "Publisher",
    "Shipper",
    "Spool",
    "SpoolFull",
    "UnreadableLine",
    "read_access_line",
    "read_timestamp",
]

# Who reads lines, such as a command, need not wait for Kafka's client.
__getattr__ = lazy_exports(
    __name__,
    {
        "_client": ("MeteringClient",),
        "_shipper": ("Publisher", "Shipper"),
        "_spool": ("Spool", "SpoolFull"),
    },
)
