"""Routes of reconciliations and findings."""

from typing import Annotated, Literal
from uuid import UUID

from fastapi import APIRouter, Depends, Query, Response

from tenant_service.dependencies import CurrentActor, Idempotent, Now, Platform, Transaction
from tenant_service.domain.findings import FindingCode, Severity
from tenant_service.domain.identifiers import CODE_PATTERN
from tenant_service.reconciling import findings, repository, service
from tenant_service.reconciling.findings import FindingFilter
from tenant_service.reconciling.schemas import FindingOut, ReconciliationOut, ReconciliationRequest
from tenantry.http import Cursor, IdempotentRoute, Limit, Page, decode_cursor, encode_cursor

router = APIRouter(tags=["reconciliation"], dependencies=[Platform], route_class=IdempotentRoute)

_LIST = "findings"


@router.post("/v1/reconciliations", status_code=202, dependencies=[Idempotent])
async def request_reconciliation(
    body: ReconciliationRequest, response: Response, session: Transaction, actor: CurrentActor, now: Now
) -> ReconciliationOut:
    """Compare the registry with what every service has, now; one of the same kind that is under way is it."""
    row = await service.request_reconciliation(session, body.tenant, repair=body.repair, actor=actor, now=now)
    response.headers["Location"] = f"/v1/reconciliations/{row.id}"
    return ReconciliationOut.of(row)


@router.get("/v1/reconciliations/{reconciliation_id}")
async def get_reconciliation(reconciliation_id: UUID, session: Transaction) -> ReconciliationOut:
    """How far a reconciliation is."""
    return ReconciliationOut.of(await repository.find_reconciliation(session, reconciliation_id))


async def _filter(
    code: FindingCode | None = None,
    severity: Severity | None = None,
    service: Annotated[str | None, Query(pattern=CODE_PATTERN)] = None,
    # Not `tenant_id`, which would select a tenant for the request: findings are of strangers as well.
    tenant: Annotated[
        UUID | None, Query(description="A tenant's id, also one of which the registry knows nothing.")
    ] = None,
    state: Annotated[Literal["open", "closed", "all"], Query()] = "open",
) -> FindingFilter:
    return FindingFilter(code, severity, service, tenant, None if state == "all" else state == "open")


Wanted = Annotated[FindingFilter, Depends(_filter)]


@router.get("/v1/findings")
async def list_findings(
    wanted: Wanted, session: Transaction, limit: Limit = 50, cursor: Cursor = None
) -> Page[FindingOut]:
    """What is wrong, the newest first."""
    before = None if cursor is None else decode_cursor(cursor, UUID, of=_LIST)
    rows = await findings.list_findings(session, wanted, before=before, limit=limit + 1)
    items = [FindingOut.of(row) for row in rows[:limit]]
    return Page(items=items, next_cursor=encode_cursor(items[-1].id, of=_LIST) if len(rows) > limit else None)


@router.get("/v1/findings/{finding_id}")
async def get_finding(finding_id: UUID, session: Transaction) -> FindingOut:
    """A finding, open or closed."""
    return FindingOut.of(await findings.find_finding(session, finding_id))
