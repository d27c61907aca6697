"""The interface of the billing service as it publishes it, read without a server."""

from typing import Any

from issuer import ISSUER

from billing_service.app import create_app
from billing_service.runtime import Runtime
from billing_service.settings import BillingSettings
from tenantry import TenancySettings
from tenantry.database import DatabaseSettings
from tenantry.events import KafkaSettings


def openapi() -> dict[str, Any]:
    """What `/openapi.json` answers."""
    nowhere = "postgresql://nowhere"
    runtime = Runtime.of(
        BillingSettings(grace_seconds=1),
        TenancySettings(issuer=ISSUER, tenant_url=ISSUER),
        KafkaSettings(kafka_bootstrap="nowhere"),
        DatabaseSettings(database_url=nowhere, system_database_url=nowhere),
    )
    return create_app(runtime).openapi()
