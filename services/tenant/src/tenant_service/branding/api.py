"""Routes of branding.

A logo is public under the hash of its content (pages that sign people in show it), and whoever does not know the hash
learns nothing, not even whether there is such a tenant.
"""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Path, Request, Response

from tenant_service.branding import service
from tenant_service.branding.models import LogoRow
from tenant_service.branding.schemas import BrandingOut
from tenant_service.config import access
from tenant_service.config.access import CurrentWriter
from tenant_service.config.parties import Subject
from tenant_service.config.schemas import LayerOut
from tenant_service.dependencies import Now, Transaction
from tenant_service.domain.images import MAX_BYTES
from tenantry import NotFound
from tenantry.http import ExpectedVersion, etag

router = APIRouter(tags=["branding"])

_BRANDING = "/v1/tenants/{tenant_id}/branding"
LOGO_PATH = "/v1/logos/{sha256}"
# The body limits of routes, for the application.
BODY_LIMITS = {f"PUT {_BRANDING}/logo": MAX_BYTES}

_PICTURE: dict[str, Any] = {
    media_type: {"schema": {"type": "string", "format": "binary"}}
    for media_type in ("image/png", "image/jpeg", "image/webp")
}

Readable = Annotated[Subject, Depends(access.read_branding)]
Writable = Annotated[Subject, Depends(access.write_branding)]
IfNoneMatch = Annotated[str | None, Header(max_length=1000)]


@router.get(_BRANDING)
async def get_branding(subject: Readable, session: Transaction, now: Now) -> BrandingOut:
    """How the tenant's pages look, all layers merged, with defaults for what nobody has set."""
    return BrandingOut.of(await service.get_branding(session, subject, now=now), subject.tenant.name)


@router.put(f"{_BRANDING}/logo", openapi_extra={"requestBody": {"required": True, "content": _PICTURE}})
async def put_logo(
    subject: Writable,
    request: Request,
    response: Response,
    expected_version: ExpectedVersion,
    session: Transaction,
    writer: CurrentWriter,
) -> LayerOut:
    """Upload the tenant's logo: PNG, JPEG or WebP, told by its content. Answers with the tenant's branding layer."""
    content = await request.body()
    written = await service.put_logo(session, subject, content, writer, expected_version=expected_version)
    response.headers["ETag"] = etag(written.document.version)
    return LayerOut.of(written)


@router.delete(f"{_BRANDING}/logo", status_code=204)
async def remove_logo(
    subject: Writable, expected_version: ExpectedVersion, session: Transaction, writer: CurrentWriter
) -> None:
    """Take the tenant's own logo away; may be repeated."""
    await service.remove_logo(session, subject, writer, expected_version=expected_version)


@router.get(f"{_BRANDING}/logo", response_class=Response, responses={200: {"content": _PICTURE}})
async def get_current_logo(
    subject: Readable, session: Transaction, now: Now, if_none_match: IfNoneMatch = None
) -> Response:
    """The logo that is shown now."""
    branding = await service.get_branding(session, subject, now=now)
    if branding.logo is None:
        raise NotFound
    return _picture(await service.get_logo(session, branding.logo.sha256), "private, no-cache", if_none_match)


@router.get(LOGO_PATH, response_class=Response, responses={200: {"content": _PICTURE}})
async def get_logo(
    sha256: Annotated[str, Path(pattern="^[0-9a-f]{64}$")], session: Transaction, if_none_match: IfNoneMatch = None
) -> Response:
    """A logo by the hash of its content, without a credential; it never changes."""
    row = await service.get_logo(session, sha256)
    return _picture(row, "public, max-age=31536000, immutable", if_none_match)


def _picture(row: LogoRow, cache_control: str, if_none_match: str | None) -> Response:
    tag = f'"{row.sha256.hex()}"'
    headers = {
        "ETag": tag,
        "Cache-Control": cache_control,
        "X-Content-Type-Options": "nosniff",
        "Content-Security-Policy": "default-src 'none'; sandbox",
    }
    known = {each.strip().removeprefix("W/") for each in (if_none_match or "").split(",")}
    if tag in known or "*" in known:
        return Response(status_code=304, headers=headers)
    return Response(row.content, headers=headers, media_type=row.media_type)
