"""Who asks for an exchanged token. `/oauth/token` is open to strangers, so it looks at their credentials itself."""

from uuid import UUID

from fastapi import Request

from tenant_service.domain.identifiers import as_uuid
from tenant_service.runtime import Runtime
from tenantry import Unauthenticated
from tenantry.identity import Principal, PrincipalKind, Scope


class InvalidSubject(Unauthenticated):
    """What is to be exchanged, or whoever wants to, is not accepted."""

    type = "invalid-subject-token"
    title = "The subject token is not accepted"


def session_of(runtime: Runtime, request: Request, secret: str | None) -> Principal:
    """The session with this secret, else that of the request's cookie, which then needs its CSRF token.

    Raises `InvalidSubject`, and what `Identifier.identify` raises.
    """
    if secret is None:
        principal = runtime.identifier.identify(request.scope).principal
    else:
        found = runtime.state.credentials.find(secret)
        if found is None:
            raise InvalidSubject("The session is unknown, signed out or expired")
        principal = found
    if principal.kind is not PrincipalKind.SESSION:
        raise InvalidSubject("This is not a session")
    return principal


def operator_of(runtime: Runtime, request: Request, token: str | None) -> Principal:
    """The operator with this token, else the one who is signed in by the request's cookie. Raises as `session_of`."""
    principal = runtime.identifier.identify(request.scope).principal if token is None else runtime.tokens.verify(token)
    if not (principal.acts_for_any_tenant and principal.has_any(Scope.PLATFORM)):
        raise InvalidSubject("This is not the credential of an operator")
    return principal


def read_grant_id(text: str | None) -> UUID:
    """The id of a grant. Raises `InvalidSubject`."""
    grant_id = None if text is None else as_uuid(text)
    if grant_id is None:
        raise InvalidSubject("This is not the id of a grant")
    return grant_id
