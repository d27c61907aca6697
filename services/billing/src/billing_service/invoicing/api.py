"""Routes of runs and invoices."""

from typing import Literal
from uuid import UUID

from fastapi import APIRouter, Depends, Response, status

from billing_service.dependencies import CurrentSettings, CurrentTenancy, Platform, Reader, Transaction
from billing_service.invoicing import repository, run_repository, service
from billing_service.invoicing.schemas import InvoiceHead, InvoiceOut, RunIn, RunItemOut, RunOut
from tenantry import CurrentPrincipal, NotFound, current_tenant_or_none
from tenantry.http import Cursor, IdempotentRoute, Limit, Page, decode_cursor, encode_cursor, idempotent

router = APIRouter(prefix="/v1", tags=["invoices"], route_class=IdempotentRoute)


@router.post(
    "/invoice-runs",
    status_code=status.HTTP_202_ACCEPTED,
    dependencies=[Platform, Depends(idempotent(Transaction))],
)
async def request_run(
    body: RunIn,
    response: Response,
    session: Transaction,
    tenancy: CurrentTenancy,
    settings: CurrentSettings,
    principal: CurrentPrincipal,
) -> RunOut:
    """Bill what is due. A worker takes the run on; ask for it until its state is `done` or `failed`."""
    run = await service.request_run(
        session,
        tenancy.directory,
        as_of=body.as_of,
        tenants=body.tenants,
        dry_run=body.dry_run,
        grace_seconds=settings.grace_seconds,
        requested_by=principal.subject,
        clock=tenancy.clock,
    )
    response.headers["Location"] = f"/v1/invoice-runs/{run.id}"
    return RunOut.of(run, {}, [])


@router.get("/invoice-runs", dependencies=[Platform])
async def list_runs(session: Transaction, limit: Limit = 50, cursor: Cursor = None) -> Page[RunOut]:
    """Runs, the newest first."""
    before = None if cursor is None else decode_cursor(cursor, UUID, of="runs")
    found = await run_repository.page(session, before, limit + 1)
    shown = found[:limit]
    items = [
        RunOut.of(run, await run_repository.progress(session, run.id), await run_repository.totals(session, run.id))
        for run in shown
    ]
    return Page(items=items, next_cursor=encode_cursor(shown[-1].id, of="runs") if len(found) > limit else None)


@router.get("/invoice-runs/{run_id}", dependencies=[Platform])
async def get_run(run_id: UUID, session: Transaction) -> RunOut:
    run = await service.get_run(session, run_id)
    return RunOut.of(run, await run_repository.progress(session, run.id), await run_repository.totals(session, run.id))


@router.get("/invoice-runs/{run_id}/periods", dependencies=[Platform])
async def list_run_periods(
    run_id: UUID, session: Transaction, limit: Limit = 50, cursor: Cursor = None
) -> Page[RunItemOut]:
    """The periods of a run and what became of each."""
    run = await service.get_run(session, run_id)
    after = 0 if cursor is None else decode_cursor(cursor, int, of="run periods")
    found = await run_repository.items_page(session, run.id, after, limit + 1)
    shown = found[:limit]
    following = encode_cursor(shown[-1].n, of="run periods") if len(found) > limit else None
    return Page(items=[RunItemOut.of(row) for row in shown], next_cursor=following)


@router.get("/invoices")
async def list_invoices(
    session: Reader,
    status: Literal["draft", "held", "final", "uncollectible"] | None = None,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> Page[InvoiceHead]:
    """Invoices of the tenant, or of all tenants for an operator who selects none; the newest first."""
    before = None if cursor is None else decode_cursor(cursor, UUID, of="invoices")
    if status not in {None, "final"}:
        return Page(items=[])
    tenant = current_tenant_or_none()
    found = await repository.page(session, None if tenant is None else tenant.id, before, limit + 1)
    shown = found[:limit]
    following = encode_cursor(shown[-1].id, of="invoices") if len(found) > limit else None
    return Page(items=[InvoiceHead.of(invoice) for invoice in shown], next_cursor=following)


@router.get("/invoices/{invoice_id}")
async def get_invoice(invoice_id: UUID, session: Reader) -> InvoiceOut:
    """An invoice with its lines, each with what it was computed from."""
    found = await repository.find(session, invoice_id)
    if found is None:
        raise NotFound
    return InvoiceOut.of(found)
