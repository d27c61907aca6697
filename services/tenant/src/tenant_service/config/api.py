"""Routes of layers: the same ones for platform, regions, tiers and tenants."""

from collections.abc import Awaitable, Callable
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Query, Response

from tenant_service.config import access, reading, repository, service
from tenant_service.config.access import CurrentWriter, NamespacePath, Target
from tenant_service.config.body import DOCUMENT_BODY, Document
from tenant_service.config.parties import Subject
from tenant_service.config.schemas import (
    DifferenceOut,
    DifferencesOut,
    EffectiveOut,
    LayerOut,
    RollBack,
    SecretsOut,
    SecretsRead,
    VersionDocumentOut,
    VersionOut,
)
from tenant_service.config.service import Written
from tenant_service.dependencies import Now, Transaction
from tenantry import CurrentPrincipal
from tenantry.http import Cursor, ExpectedVersion, Limit, Page, decode_cursor, encode_cursor, etag

router = APIRouter(tags=["configuration"])

_TENANT = "/v1/tenants/{tenant_id}/config/{namespace}"

Force = Annotated[bool, Query(description="Write even where tenants below are left with an invalid document.")]
Version = Annotated[int, Path(ge=1, le=2**62)]
VersionQuery = Annotated[int, Query(ge=0, le=2**62)]


def _shown(written: Written, response: Response) -> LayerOut:
    response.headers["ETag"] = etag(written.document.version)
    return LayerOut.of(written)


def _add_layer_routes(path: str, readable: Callable[..., Awaitable[Target]], writable: Callable[..., Any]) -> None:
    """`readable` and `writable` are dependencies that give the layer of the path where the caller may do that."""

    async def get_layer(
        target: Annotated[Target, Depends(readable)], session: Transaction, response: Response
    ) -> LayerOut:
        """What the layer says; secrets are shown as `{"secret": true, "set_at": …}`."""
        return _shown(await service.get_layer(session, target.place), response)

    async def put_layer(
        target: Annotated[Target, Depends(writable)],
        body: Document,
        response: Response,
        expected_version: ExpectedVersion,
        session: Transaction,
        writer: CurrentWriter,
        force: Force = False,
    ) -> LayerOut:
        """Replace what the layer says: 201 or 200; the same document again changes nothing.

        A key that is null, or left out, inherits. A secret that is sent back as it was shown is kept.
        """
        written = await service.put_layer(
            session,
            target.place,
            body,
            writer,
            subject=target.subject,
            expected_version=expected_version,
            force=force and writer.is_operator,
        )
        response.status_code = 201 if written.created else 200
        return _shown(written, response)

    async def delete_layer(
        target: Annotated[Target, Depends(writable)],
        expected_version: ExpectedVersion,
        session: Transaction,
        writer: CurrentWriter,
        force: Force = False,
    ) -> None:
        """Let the layer say nothing; may be repeated."""
        await service.delete_layer(
            session,
            target.place,
            writer,
            subject=target.subject,
            expected_version=expected_version,
            force=force and writer.is_operator,
        )

    async def list_versions(
        target: Annotated[Target, Depends(readable)], session: Transaction, limit: Limit = 50, cursor: Cursor = None
    ) -> Page[VersionOut]:
        """Everything that the layer ever said, the newest first."""
        of = target.place.key
        before = None if cursor is None else decode_cursor(cursor, int, of=of)
        await repository.find_schema(session, target.place.namespace)
        rows = await repository.list_versions(session, target.place, before=before, limit=limit + 1)
        items = [VersionOut.of(row) for row in rows[:limit]]
        return Page(items=items, next_cursor=encode_cursor(items[-1].version, of=of) if len(rows) > limit else None)

    async def get_version(
        target: Annotated[Target, Depends(readable)], version: Version, session: Transaction
    ) -> VersionDocumentOut:
        """What the layer said in one version."""
        return VersionDocumentOut.of(await repository.find_version(session, target.place, version))

    async def get_differences(
        target: Annotated[Target, Depends(readable)],
        session: Transaction,
        since: Annotated[VersionQuery, Query(alias="from", description="0 is the empty layer of the beginning.")],
        to: Annotated[VersionQuery | None, Query(description="Left out: what the layer says now.")] = None,
    ) -> DifferencesOut:
        """What differs between two versions, value by value."""
        found = await reading.compare(session, target.place, since, to)
        return DifferencesOut(items=[DifferenceOut.of(difference) for difference in found])

    async def roll_back(
        target: Annotated[Target, Depends(writable)],
        body: RollBack,
        response: Response,
        expected_version: ExpectedVersion,
        session: Transaction,
        writer: CurrentWriter,
        force: Force = False,
    ) -> LayerOut:
        """Say again, as a new version, what an older one said; may be repeated."""
        written = await service.roll_back(
            session,
            target.place,
            body.version,
            writer,
            subject=target.subject,
            expected_version=expected_version,
            force=force and writer.is_operator,
        )
        return _shown(written, response)

    router.add_api_route(path, get_layer, methods=["GET"])
    created: dict[int | str, dict[str, Any]] = {201: {"model": LayerOut, "description": "There was none before"}}
    router.add_api_route(path, put_layer, methods=["PUT"], responses=created, openapi_extra=DOCUMENT_BODY)
    router.add_api_route(path, delete_layer, methods=["DELETE"], status_code=204)
    router.add_api_route(f"{path}/versions", list_versions, methods=["GET"])
    router.add_api_route(f"{path}/versions/{{version}}", get_version, methods=["GET"])
    router.add_api_route(f"{path}/diff", get_differences, methods=["GET"])
    router.add_api_route(f"{path}/rollback", roll_back, methods=["POST"])


_add_layer_routes("/v1/config/platform/{namespace}", access.platform_layer, access.platform_layer)
_add_layer_routes("/v1/config/region/{name}/{namespace}", access.region_layer, access.region_layer)
_add_layer_routes("/v1/config/tier/{name}/{namespace}", access.tier_layer, access.tier_layer)
_add_layer_routes(_TENANT, access.read_tenant_layer, access.write_tenant_layer)


@router.get(f"{_TENANT}/effective")
async def get_effective(
    target: Annotated[Target, Depends(access.read_tenant_layer)],
    session: Transaction,
    now: Now,
    provenance: Annotated[bool, Query(description="Whether to say which layer each value came from.")] = False,
) -> EffectiveOut:
    """What holds for the tenant, all layers merged and the tier's constraint applied."""
    namespace, subject = target.place.namespace, target.subject
    if subject is None:  # pragma: no cover - the target of a tenant has one
        raise LookupError(namespace)
    found = await reading.effective(session, subject, namespace, now=now)
    faults = await reading.faults_of(session, namespace, found)
    return EffectiveOut.of(namespace, found, faults, provenance=provenance)


@router.post(f"{_TENANT}/secrets")
async def read_secrets(
    subject: Annotated[Subject, Depends(access.secrets_of_tenant)],
    namespace: NamespacePath,
    body: SecretsRead,
    response: Response,
    session: Transaction,
    principal: CurrentPrincipal,
    writer: CurrentWriter,
) -> SecretsOut:
    """The values of secrets, for a service that the namespace names; every reading is in the tenant's audit trail."""
    response.headers["Cache-Control"] = "no-store"
    values = await reading.reveal(session, subject, namespace, body.pointers, principal.subject, writer)
    return SecretsOut(values=values)
