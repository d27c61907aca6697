"""Routes of signing in and out."""

from datetime import datetime
from typing import Annotated
from urllib.parse import urlencode
from uuid import UUID

from fastapi import APIRouter, Depends, Form, Query, Request, Response
from fastapi.responses import RedirectResponse

from tenant_service.dependencies import (
    BuiltinIdentity,
    CurrentActor,
    CurrentRuntime,
    IdempotentSecret,
    Now,
    Platform,
    Transaction,
)
from tenant_service.domain.redirects import DEFAULT_TARGET, allowed_target
from tenant_service.runtime import Runtime
from tenant_service.sessions import service
from tenant_service.sessions.members import switch_session
from tenant_service.sessions.page import sign_in_page
from tenant_service.sessions.schemas import (
    CodeCreate,
    CodeOut,
    PersonCodeCreate,
    SessionCreate,
    SessionOut,
    SessionSwitch,
)
from tenant_service.sessions.service import SESSION_LIFETIME, InvalidCode, SignedIn
from tenant_service.sessions.sign_in import create_person_code, sign_in
from tenantry import CurrentPrincipal, InvalidRequest, NotFound, PermissionDenied, Unauthenticated, current_request_id
from tenantry.http import IdempotentRoute, require_scope
from tenantry.identity import SESSION_COOKIE, PrincipalKind, Scope, csrf_token

router = APIRouter(tags=["sessions"], route_class=IdempotentRoute)

SESSIONS_PATH = "/v1/sessions"
PAGE_PATH = "/signin"

Parameter = Annotated[str, Query(max_length=2000)]
Field = Annotated[str, Form(max_length=2000)]


def _target(next_url: str | None, runtime: Runtime) -> str:
    target = allowed_target(next_url, runtime.settings.sign_in_origins)
    if target is None:
        detail = "this address is not one that people may be sent to"
        raise InvalidRequest(detail, errors=[{"loc": ["next"], "msg": detail}])
    return target


def _set_cookie(response: Response, signed_in: SignedIn) -> None:
    # The prefix __Host- makes browsers insist on Secure, on this host alone, and on no Domain.
    response.set_cookie(
        SESSION_COOKIE,
        signed_in.secret,
        max_age=int(SESSION_LIFETIME.total_seconds()),
        path="/",
        secure=True,
        httponly=True,
        samesite="lax",
    )
    response.headers["Cache-Control"] = "no-store"


def _begun(signed_in: SignedIn, response: Response) -> SessionOut:
    _set_cookie(response, signed_in)
    return SessionOut(
        id=signed_in.id,
        subject=signed_in.subject,
        tenant_id=signed_in.tenant_id,
        scopes=list(signed_in.scopes),
        expires_at=signed_in.expires_at,
        csrf_token=csrf_token(signed_in.secret),
    )


def _code(code: str, expires_at: datetime, target: str, response: Response, runtime: Runtime) -> CodeOut:
    response.headers["Cache-Control"] = "no-store"
    query = {"code": code} if target == DEFAULT_TARGET else {"code": code, "next": target}
    url = f"{runtime.settings.base_url}{PAGE_PATH}?{urlencode(query)}"
    return CodeOut(code=code, url=url, expires_at=expires_at)


@router.post("/v1/sign-in-codes", status_code=201, dependencies=[Platform, IdempotentSecret])
async def create_code(
    body: CodeCreate, response: Response, session: Transaction, runtime: CurrentRuntime, actor: CurrentActor, now: Now
) -> CodeOut:
    """A one-time code for the caller, good for ten minutes, and the address of the page that takes it."""
    target = _target(body.next, runtime)
    code, expires_at = await service.create_code(
        session, subject=actor.subject, scopes=["platform"], actor=actor, now=now
    )
    return _code(code, expires_at, target, response, runtime)


@router.post(
    "/v1/people/sign-in-codes",
    status_code=201,
    dependencies=[Depends(require_scope(Scope.DELIVER)), BuiltinIdentity, IdempotentSecret],
)
async def create_code_of_person(
    body: PersonCodeCreate,
    response: Response,
    session: Transaction,
    runtime: CurrentRuntime,
    actor: CurrentActor,
    now: Now,
) -> CodeOut:
    """For the mailer behind a login page: a one-time code to be mailed to this address, and to nobody else.

    404 where nobody has the address. The page must show its visitor the same in both cases.
    """
    target = _target(body.next, runtime)
    code, expires_at = await create_person_code(session, email=body.email, tenant=body.tenant_id, actor=actor, now=now)
    return _code(code, expires_at, target, response, runtime)


@router.post(SESSIONS_PATH, status_code=201)
async def create_session(body: SessionCreate, response: Response, session: Transaction, now: Now) -> SessionOut:
    """Sign in with a code: the session is in the cookie, which scripts cannot read."""
    return _begun(await sign_in(session, body.code, request_id=current_request_id(), now=now), response)


@router.get(f"{SESSIONS_PATH}/current")
async def get_session(request: Request, response: Response, principal: CurrentPrincipal) -> SessionOut:
    """Who is signed in."""
    secret = request.cookies.get(SESSION_COOKIE)
    if principal.kind is not PrincipalKind.SESSION or secret is None or principal.expires_at is None:
        raise NotFound("The request was not made in a session")
    response.headers["Cache-Control"] = "no-store"
    return SessionOut(
        id=UUID(principal.credential_id),
        subject=principal.subject,
        tenant_id=principal.tenant_id,
        scopes=sorted(principal.scopes),
        expires_at=principal.expires_at,
        csrf_token=csrf_token(secret),
    )


@router.post(f"{SESSIONS_PATH}/current/switch", status_code=201)
async def switch_tenant(
    body: SessionSwitch, response: Response, principal: CurrentPrincipal, session: Transaction, now: Now
) -> SessionOut:
    """Go on in another tenant that the person is a member of: a new session, in the place of this one."""
    if principal.kind is not PrincipalKind.SESSION:
        raise NotFound("The request was not made in a session")
    signed_in = await switch_session(
        session, UUID(principal.credential_id), body.tenant_id, request_id=current_request_id(), now=now
    )
    return _begun(signed_in, response)


@router.delete(f"{SESSIONS_PATH}/current", status_code=204)
async def delete_session(
    response: Response, principal: CurrentPrincipal, session: Transaction, actor: CurrentActor, now: Now
) -> None:
    """Sign out, in every service."""
    if principal.kind is not PrincipalKind.SESSION:
        raise NotFound("The request was not made in a session")
    await service.sign_out(session, UUID(principal.credential_id), actor=actor, now=now)
    response.delete_cookie(SESSION_COOKIE, path="/", secure=True, httponly=True, samesite="lax")


@router.get(PAGE_PATH, include_in_schema=False)
async def show_page(runtime: CurrentRuntime, code: Parameter = "", next: Parameter = "") -> Response:  # noqa: A002
    """The page with the form. Looking at it uses nothing up."""
    target = _target(next, runtime)
    return sign_in_page(code=code, target=target, origins=runtime.settings.sign_in_origins)


@router.post(PAGE_PATH, include_in_schema=False)
async def submit_page(
    request: Request,
    runtime: CurrentRuntime,
    now: Now,
    code: Field = "",
    next: Field = "",  # noqa: A002
) -> Response:
    """Sign in and go on to the address of `next`; a wrong code shows the form again."""
    target = _target(next, runtime)
    _check_origin(request, runtime)
    try:
        async with runtime.transactions.begin() as session:
            signed_in = await sign_in(session, code, request_id=current_request_id(), now=now)
    except InvalidCode as refused:
        return sign_in_page(
            code="",
            target=target,
            origins=runtime.settings.sign_in_origins,
            error=refused.detail,
            status=Unauthenticated.status,
        )
    response = RedirectResponse(target, status_code=303)
    _set_cookie(response, signed_in)
    return response


def _check_origin(request: Request, runtime: Runtime) -> None:
    """Another site's form must not sign anybody in, as whomever it likes. Browsers always say where a form is from."""
    origin = request.headers.get("origin")
    if origin in {None, runtime.settings.base_url, str(request.base_url).rstrip("/")}:
        return
    raise PermissionDenied("The form was not sent from the sign-in page")
