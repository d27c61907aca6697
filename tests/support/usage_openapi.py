"""The interface of the usage service as it publishes it, read without a server."""

from typing import Any

from issuer import ISSUER
from local_state import GivenState

from tenantry import Tenancy, TenancySettings
from tenantry.database import Databases, DatabaseSettings
from tenantry.events import KafkaSettings
from usage_service.app import create_app
from usage_service.settings import UsageSettings


def openapi() -> dict[str, Any]:
    """What `/openapi.json` answers."""
    databases = Databases("usage", DatabaseSettings(database_url="postgresql://nowhere"), follow_placement=False)
    tenancy = Tenancy("usage", TenancySettings(issuer=ISSUER), source=GivenState(), databases=databases)
    return create_app(UsageSettings(), tenancy, KafkaSettings(kafka_bootstrap="nowhere")).openapi()
