"""Routes of the console."""

from typing import Final
from urllib.parse import quote

from fastapi import APIRouter, Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from billing_service.dashboard.live import LivePage
from billing_service.dashboard.render import PAGE_HEADERS, Fragments
from billing_service.dashboard.stream import EventStream, Hub
from billing_service.dependencies import CurrentTenancy, Platform
from tenantry import PermissionDenied, Unauthenticated, Unavailable
from tenantry.identity import Scope

PAGE_PATH: Final = "/console"
STATIC_PATH: Final = "/console/static"

router = APIRouter(include_in_schema=False)


@router.get(PAGE_PATH)
async def console(request: Request, tenancy: CurrentTenancy) -> Response:
    """The page for operators; who is not signed in is sent to sign in and comes back.

    The route is public to the middleware, which would answer 401 to a browser; it identifies its caller itself.
    """
    try:
        identity = tenancy.identifier().identify(request.scope)
    except Unauthenticated:
        sign_in = tenancy.settings.tenant_url or tenancy.settings.issuer
        target = f"{sign_in.rstrip('/')}/signin?next={quote(str(request.url), safe='')}"
        return RedirectResponse(target, status_code=303, headers={"Cache-Control": "no-store"})
    if not identity.principal.has_any(Scope.PLATFORM):
        raise PermissionDenied("The console is for operators.")
    live: LivePage = request.app.state.live
    fragments: Fragments = request.app.state.fragments
    return HTMLResponse(fragments.page(live.view(), identity.principal.subject), headers=PAGE_HEADERS)


@router.get("/console/stream", dependencies=[Platform])
async def stream(request: Request) -> Response:
    """The console's updates as server-sent events."""
    hub: Hub = request.app.state.hub
    if hub.is_full:
        raise Unavailable("Too many consoles are open.", retry_after=5)
    return EventStream(hub)
