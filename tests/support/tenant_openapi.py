"""The interface of the tenant service as it publishes it, read without a server."""

from types import SimpleNamespace
from typing import Any, cast

from tenant_service.app import create_app
from tenant_service.runtime import Runtime
from tenantry import LocalDirectory


def openapi() -> dict[str, Any]:
    """What `/openapi.json` answers, test clocks included."""
    runtime = SimpleNamespace(
        state=SimpleNamespace(directory=LocalDirectory(ready=True)),
        settings=SimpleNamespace(test_clocks_enabled=True),
        identifier=None,
    )
    return create_app(cast("Runtime", runtime)).openapi()
