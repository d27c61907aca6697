"""The interface of the app as it publishes it, read without a server so that tests can be generated from it."""

from typing import Any

from issuer import ISSUER
from local_state import GivenState

from app_service.app import create_app
from app_service.settings import AppSettings
from tenantry import Tenancy, TenancySettings


def openapi() -> dict[str, Any]:
    """What `/openapi.json` answers."""
    tenancy = Tenancy("app", TenancySettings(issuer=ISSUER), source=GivenState())
    return create_app(AppSettings(), tenancy).openapi()
