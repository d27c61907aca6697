"""Metering from inside a service: events spooled to disk before the response, shipped to Kafka after it.

And lines of files that others wrote, read as usage.
"""

from tenantry.metering._client import MeteringClient
from tenantry.metering._lines import AccessLine, UnreadableLine, read_access_line, read_timestamp
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
