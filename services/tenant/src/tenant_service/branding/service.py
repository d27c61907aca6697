"""Use cases of logos. The caller opens the transaction and commits it."""

import hashlib
from datetime import datetime

from sqlalchemy.ext.asyncio import AsyncSession

from tenant_service.branding import repository
from tenant_service.branding.logos import logo_document
from tenant_service.branding.models import LogoRow
from tenant_service.config.parties import Subject, Writer
from tenant_service.config.reading import effective
from tenant_service.config.service import Written, patch_layer
from tenant_service.domain.images import UnusableImage, inspect_image
from tenantry import NotFound, UnsupportedMedia
from tenantry.config import BRANDING, Branding, ConfigView, branding_of


class NoLogo(UnsupportedMedia):
    """What was uploaded cannot be shown."""

    type = "unusable-image"
    title = "The logo cannot be used"


async def put_logo(
    session: AsyncSession, subject: Subject, content: bytes, writer: Writer, *, expected_version: int | None
) -> Written:
    """Make the picture the tenant's logo: a version of its branding. Repeating changes nothing.

    Raises `NoLogo`, and what `put_layer` raises.
    """
    try:
        image = inspect_image(content)
    except UnusableImage as error:
        raise NoLogo(str(error)) from None
    row = LogoRow(
        tenant_id=subject.tenant.id,
        sha256=hashlib.sha256(content).digest(),
        media_type=image.media_type,
        width=image.width,
        height=image.height,
        content=content,
        created_at=writer.now,
    )
    await repository.add_logo(session, row)
    place = subject.place(BRANDING)
    patch = {"logo": logo_document(row)}
    written = await patch_layer(session, place, patch, writer, subject=subject, expected_version=expected_version)
    await repository.drop_old_logos(session, subject.tenant.id)
    return written


async def remove_logo(session: AsyncSession, subject: Subject, writer: Writer, *, expected_version: int | None) -> None:
    """Show no logo of the tenant's own; may be repeated. Raises what `put_layer` raises."""
    place = subject.place(BRANDING)
    await patch_layer(session, place, {"logo": None}, writer, subject=subject, expected_version=expected_version)


async def get_branding(session: AsyncSession, subject: Subject, *, now: datetime) -> Branding:
    """What the tenant's pages look like, all layers merged."""
    return branding_of(ConfigView(BRANDING, await effective(session, subject, BRANDING, now=now)))


async def get_logo(session: AsyncSession, sha256: str) -> LogoRow:
    """The picture with this content. Raises `NotFound`."""
    row = await repository.find_logo(session, bytes.fromhex(sha256))
    if row is None:
        raise NotFound
    return row
