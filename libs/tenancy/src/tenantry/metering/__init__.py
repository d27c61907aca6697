"""Metering from inside a service: events spooled to disk before the response, shipped to Kafka after it."""

from tenantry.metering._client import MeteringClient
from tenantry.metering._shipper import Publisher, Shipper
from tenantry.metering._spool import Spool, SpoolFull

__all__ = ["MeteringClient", "Publisher", "Shipper", "Spool", "SpoolFull"]
