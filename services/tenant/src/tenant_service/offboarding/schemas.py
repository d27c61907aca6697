"""What comes in over HTTP and what goes out."""

from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from tenant_service.domain.saga import RunState
from tenant_service.offboarding.repository import Export
from tenant_service.tenants.schemas import Note

MAX_GRACE_DAYS = 3650


class Offboarding(BaseModel):
    model_config = ConfigDict(extra="forbid")

    grace_days: int = Field(30, strict=True, ge=0, le=MAX_GRACE_DAYS, description="How long all can be taken back.")
    export: bool | None = Field(None, description="Export the data first; left out: where there is a store for it.")
    note: Note = ""


class Purge(BaseModel):
    model_config = ConfigDict(extra="forbid")

    purged_since: AwareDatetime = Field(description="When the backup that was restored was taken, or earlier.")


class PurgesOut(BaseModel):
    tenants: int = Field(description="How many tenants every service is asked about.")


class CertificateOut(BaseModel):
    """The certificate, and its SHA-256, which the platform's audit trail holds as well."""

    certificate: dict[str, Any]
    digest: str


class ExportFileOut(BaseModel):
    service: str
    table: str
    rows: int
    file: str
    bytes: int
    sha256: str


class ExportOut(BaseModel):
    """An export; `files` are complete when `state` is `succeeded`, and can be had until `expires_at`."""

    id: UUID
    state: RunState
    created_at: datetime
    ended_at: datetime | None
    expires_at: datetime | None = Field(description="When the files are deleted; null while there are some to come.")
    files: list[ExportFileOut]

    @classmethod
    def of(cls, export: Export, kept: timedelta) -> "ExportOut":
        files = [
            ExportFileOut(
                service=service,
                table=table["table"],
                rows=table["rows"],
                file=table["file"].rpartition("/")[2],
                bytes=table["bytes"],
                sha256=table["sha256"],
            )
            for service, result in sorted(export.results.items())
            for table in result.get("tables", ())
            if table.get("file")
        ]
        return cls(
            id=export.run.id,
            state=export.state,
            created_at=export.run.created_at,
            ended_at=export.ended_at,
            expires_at=export.expires_at(kept),
            files=files,
        )
