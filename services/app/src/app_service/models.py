"""The tables of the product. They have no schema: where they live is a matter of the tenant's placement."""

from datetime import datetime
from typing import Any, ClassVar
from uuid import UUID

from sqlalchemy import BigInteger, Computed, ForeignKeyConstraint, Integer, LargeBinary, Text, UniqueConstraint
from sqlalchemy.dialects.postgresql import ARRAY, TIMESTAMP, TSVECTOR
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from tenantry.database import DataCatalogue, Retention, SystemTable, TenantMixin, TenantTable, metadata
from tenantry.jobs import JOB_TABLES
from tenantry.offboarding import OFFBOARDING_TABLES

SEARCH_VECTOR = (
    "setweight(to_tsvector('simple'::regconfig, title), 'A') || "
    "setweight(array_to_tsvector(tags), 'B') || "
    "setweight(to_tsvector('simple'::regconfig, body), 'C')"
)


class Record(DeclarativeBase):
    metadata = metadata()
    type_annotation_map: ClassVar[dict[Any, Any]] = {
        str: Text,
        int: BigInteger,
        bytes: LargeBinary,
        datetime: TIMESTAMP(timezone=True),
        list[str]: ARRAY(Text),
    }


class Document(TenantMixin, Record):
    __tablename__ = "document"
    __mapper_args__ = {"eager_defaults": False}  # noqa: RUF012 - SQLAlchemy declares it on the instance

    id: Mapped[UUID] = mapped_column(primary_key=True)
    title: Mapped[str]
    body: Mapped[str]
    tags: Mapped[list[str]]
    version: Mapped[int]
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]
    search: Mapped[Any] = mapped_column(
        TSVECTOR, Computed(SEARCH_VECTOR, persisted=True), deferred=True, deferred_raiseload=True
    )


class DocumentFile(TenantMixin, Record):
    """An attachment; `content_id` names the chunks that hold its present content."""

    __tablename__ = "document_file"
    __table_args__ = (
        ForeignKeyConstraint(["tenant_id", "document_id"], ["document.tenant_id", "document.id"], ondelete="CASCADE"),
        UniqueConstraint("tenant_id", "content_id"),
    )

    document_id: Mapped[UUID] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(primary_key=True)
    content_id: Mapped[UUID]
    content_type: Mapped[str]
    size: Mapped[int]
    sha256: Mapped[bytes]
    version: Mapped[int]
    updated_at: Mapped[datetime]


class FileChunk(TenantMixin, Record):
    """A piece of a file; all but the last of a content have the same length."""

    __tablename__ = "file_chunk"
    __table_args__ = (
        ForeignKeyConstraint(
            ["tenant_id", "content_id"], ["document_file.tenant_id", "document_file.content_id"], ondelete="CASCADE"
        ),
    )

    content_id: Mapped[UUID] = mapped_column(primary_key=True)
    position: Mapped[int] = mapped_column(Integer, primary_key=True)
    data: Mapped[bytes]


class Export(TenantMixin, Record):
    """An archive of everything that the tenant had when a job wrote it; until then it has no `finished_at`."""

    __tablename__ = "export"

    id: Mapped[UUID] = mapped_column(primary_key=True)
    job_id: Mapped[int]
    created_at: Mapped[datetime]
    expires_at: Mapped[datetime]
    finished_at: Mapped[datetime | None]
    documents: Mapped[int]
    files: Mapped[int]
    size: Mapped[int]
    sha256: Mapped[bytes | None]


class ExportChunk(TenantMixin, Record):
    """A piece of an archive; all but the last have the same length."""

    __tablename__ = "export_chunk"
    __table_args__ = (
        ForeignKeyConstraint(["tenant_id", "export_id"], ["export.tenant_id", "export.id"], ondelete="CASCADE"),
    )

    export_id: Mapped[UUID] = mapped_column(primary_key=True)
    position: Mapped[int] = mapped_column(Integer, primary_key=True)
    data: Mapped[bytes]


class StorageTotal(TenantMixin, Record):
    """What a tenant's files and exports take, in bytes: one row, whose lock orders the changes."""

    __tablename__ = "storage_total"

    bytes: Mapped[int]
    changed_at: Mapped[datetime]


CATALOGUE = DataCatalogue(
    "app",
    tables=[
        TenantTable("document", retention=Retention.ERASE),
        TenantTable("document_file", retention=Retention.ERASE),
        TenantTable("file_chunk", retention=Retention.ERASE),
        TenantTable("export", retention=Retention.ERASE),
        # Copies of what is exported anyway.
        TenantTable("export_chunk", retention=Retention.ERASE, exported=False),
        TenantTable("storage_total", retention=Retention.ERASE),
        SystemTable("warm_place"),
        *OFFBOARDING_TABLES,
        *JOB_TABLES,
    ],
)
