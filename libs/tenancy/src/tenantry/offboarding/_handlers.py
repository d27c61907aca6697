"""The requests of the tenant service: a task is made of each, and its answer comes when the task is done."""

from collections.abc import Mapping
from typing import Any, Final
from uuid import UUID

import msgspec

from tenantry._clock import Clock
from tenantry._errors import InvalidRequest
from tenantry._tenant import Tenant
from tenantry.database import Databases, DataCatalogue
from tenantry.events import LATER, Handler, Later, Request
from tenantry.offboarding._plan import catalogue_digest
from tenantry.offboarding._settings import ExportNotConfigured
from tenantry.offboarding._tasks import Kind, ask

EXPORT: Final = "tenant.export"
PURGE: Final = "tenant.purge"


class _Wanted(msgspec.Struct, frozen=True):
    idempotency_key: UUID
    tenant: Tenant


def offboarding_handlers(
    databases: Databases, catalogue: DataCatalogue, clock: Clock, *, exports: bool
) -> Mapping[str, Handler]:
    """Handlers for `RequestResponder`, by kind. What they start is done by `OffboardingWorker`.

    `data` of a request holds the tenant's document and the idempotency key of the saga's step, which is the same in
    each of its attempts: one task is made, and whoever asks again waits for it or gets its result. `exports` says
    whether the worker has a store.
    """

    async def handle(request: Request, kind: Kind) -> Mapping[str, Any] | Later:
        wanted = _wanted(request)
        async with databases.system_session() as session:
            asked = await ask(
                session,
                task_id=wanted.idempotency_key,
                request_id=request.request_id,
                kind=kind,
                tenant_id=wanted.tenant.id,
                tenant=msgspec.to_builtins(wanted.tenant),
                digest=catalogue_digest(catalogue),
                now=clock.now(),
            )
        return LATER if asked.result is None else asked.result

    async def export(request: Request) -> Mapping[str, Any] | Later:
        if not exports:
            raise ExportNotConfigured
        return await handle(request, "export")

    async def purge(request: Request) -> Mapping[str, Any] | Later:
        return await handle(request, "purge")

    return {EXPORT: export, PURGE: purge}


def _wanted(request: Request) -> _Wanted:
    try:
        wanted = msgspec.convert(request.data, _Wanted)
    except msgspec.ValidationError as error:
        raise InvalidRequest(str(error)) from error
    if request.tenant_id != wanted.tenant.id:
        raise InvalidRequest("the request is about another tenant than the document in it")
    return wanted
