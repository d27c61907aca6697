"""What a layer may say about logos: the namespace `branding`, beside its schema."""

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from tenant_service.branding.models import LogoRow
from tenant_service.branding.repository import find_logo
from tenantry import FieldError


def logo_document(row: LogoRow) -> dict[str, Any]:
    """What the configuration says of an uploaded picture."""
    return {
        "sha256": row.sha256.hex(),
        "media_type": row.media_type,
        "width": row.width,
        "height": row.height,
    }


async def check_logo(session: AsyncSession, document: Mapping[str, Any], tenant_id: UUID | None) -> list[FieldError]:
    """What is wrong with the logo of a document that satisfies its schema: only an uploaded one can be shown."""
    logo = document.get("logo")
    if not isinstance(logo, dict):
        return []
    row = None
    if tenant_id is not None and isinstance(logo.get("sha256"), str):
        row = await find_logo(session, bytes.fromhex(logo["sha256"]), tenant_id)
    if row is None or logo_document(row) != logo:
        return [{"loc": ["logo"], "msg": "is not a logo that was uploaded for this tenant"}]
    return []
