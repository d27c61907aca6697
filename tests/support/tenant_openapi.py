"""The interface of the tenant service as it publishes it, read without a server."""

from types import SimpleNamespace
from typing import Any, cast

from issuer import ISSUER

from tenant_service.app import create_app
from tenant_service.runtime import Runtime
from tenantry import LocalDirectory, TenancySettings


def openapi() -> dict[str, Any]:
    """What `/openapi.json` answers, test clocks included."""
    runtime = SimpleNamespace(
        platform=TenancySettings(issuer=ISSUER),
        state=SimpleNamespace(
            directory=LocalDirectory(ready=True), configuration=SimpleNamespace(config=None), lag_seconds=0.0
        ),
        settings=SimpleNamespace(test_clocks_enabled=True),
        identifier=None,
    )
    return create_app(cast("Runtime", runtime)).openapi()
