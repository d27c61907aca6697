"""Says when this process works by a tenant's new state."""

from collections.abc import Mapping
from typing import Any, Final

from tenantry import InvalidRequest
from tenantry.events._directory import KafkaDirectory
from tenantry.events._requests import Handler, NotYet, Request

STATE_APPLIED: Final = "tenant.state_applied"

_WITHIN_SECONDS: Final = 5.0


def state_applied(directory: KafkaDirectory, *, within_seconds: float = _WITHIN_SECONDS) -> Handler:
    """A handler for `tenant.state_applied` (lane WAITING): done once the directory has the version that is asked for.

    It speaks for the process that it runs in; the others of the service follow the same topic at the same time. The
    state is in force without it: it is for the operator who wants to see that. Where the version does not arrive, the
    answer is `NotYet`.
    """

    async def confirm(request: Request) -> Mapping[str, Any]:
        tenant_id, version = request.tenant_id, request.data.get("version")
        if tenant_id is None or not isinstance(version, int):
            raise InvalidRequest("the tenant or the version of its state is missing")

        def arrived() -> bool:
            known = directory.directory.get(tenant_id)
            return directory.directory.is_purged(tenant_id) or (known is not None and known.version >= version)

        try:
            await directory.wait_for(arrived, within_seconds)
        except TimeoutError:
            raise NotYet("state-not-applied", f"version {version} of the tenant is not known here") from None
        return {"version": version}

    return confirm
