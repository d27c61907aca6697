"""The tables of configuration."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Boolean, ForeignKey
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from tenant_service.models import Record

_IN_SYSTEM = {"schema": "system"}
# Without it None would be stored as JSON's null, which is a value.
_DOCUMENT = JSONB(none_as_null=True)


class ConfigSchemaRow(Record):
    """The present schema of a namespace; `published` says whether the other services have been told."""

    __tablename__ = "config_schema"
    __table_args__ = _IN_SYSTEM

    namespace: Mapped[str] = mapped_column(primary_key=True)
    version: Mapped[int]
    schema: Mapped[dict[str, Any]]
    writable_by: Mapped[str]
    secret_readers: Mapped[list[str]]
    published: Mapped[bool] = mapped_column(Boolean)
    updated_at: Mapped[datetime]


class ConfigSchemaVersionRow(Record):
    """Every schema that a namespace ever had."""

    __tablename__ = "config_schema_version"
    __table_args__ = _IN_SYSTEM

    namespace: Mapped[str] = mapped_column(ForeignKey("system.config_schema.namespace"), primary_key=True)
    version: Mapped[int] = mapped_column(primary_key=True)
    schema: Mapped[dict[str, Any]]
    writable_by: Mapped[str]
    secret_readers: Mapped[list[str]]
    created_at: Mapped[datetime]
    created_by: Mapped[str]


class ConfigLayerRow(Record):
    """What a layer says now; without a document it says nothing, and the row stays so that versions go on rising."""

    __tablename__ = "config_layer"
    __table_args__ = _IN_SYSTEM

    namespace: Mapped[str] = mapped_column(ForeignKey("system.config_schema.namespace"), primary_key=True)
    layer: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(primary_key=True)
    tenant_id: Mapped[UUID | None] = mapped_column(ForeignKey("system.tenant.id"))
    version: Mapped[int]
    document: Mapped[dict[str, Any] | None] = mapped_column(_DOCUMENT)
    updated_at: Mapped[datetime]


class ConfigVersionRow(Record):
    """Everything that a layer ever said. Secrets are in it as ciphertext."""

    __tablename__ = "config_version"
    __table_args__ = _IN_SYSTEM

    namespace: Mapped[str] = mapped_column(primary_key=True)
    layer: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(primary_key=True)
    version: Mapped[int] = mapped_column(primary_key=True)
    tenant_id: Mapped[UUID | None] = mapped_column(ForeignKey("system.tenant.id"))
    document: Mapped[dict[str, Any] | None] = mapped_column(_DOCUMENT)
    rolled_back_to: Mapped[int | None]
    created_at: Mapped[datetime]
    created_by: Mapped[str]


class ConfigKeyRow(Record):
    """The data key of a tenant (or of the platform: the nil UUID), wrapped with the master key; gone once destroyed."""

    __tablename__ = "config_key"
    __table_args__ = _IN_SYSTEM

    owner_id: Mapped[UUID] = mapped_column(primary_key=True)
    nonce: Mapped[bytes | None]
    wrapped_key: Mapped[bytes | None]
    created_at: Mapped[datetime]
    destroyed_at: Mapped[datetime | None]
