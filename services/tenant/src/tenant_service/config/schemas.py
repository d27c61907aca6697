"""What comes in over HTTP and what goes out."""

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints

from tenant_service.config.models import ConfigVersionRow
from tenant_service.config.secrets import shown
from tenant_service.config.service import Written
from tenantry import FieldError
from tenantry.config import Difference, Effective, NamespaceSchema, Source, split

Namespace = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_-]{0,62}$")]
LayerName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9](?:[a-z0-9_.-]{0,62}[a-z0-9])?$")]
ClientId = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")]


def _check_pointer(text: str) -> str:
    split(text)
    if not text:
        raise ValueError("names the whole document")
    return text


Pointer = Annotated[str, StringConstraints(max_length=1000), AfterValidator(_check_pointer)]


class SchemaPut(BaseModel):
    """A namespace's record; the schema alone does as well."""

    model_config = ConfigDict(extra="forbid", serialize_by_alias=True)

    # `schema` is a method of BaseModel.
    json_schema: dict[str, Any] = Field(alias="schema", description="JSON Schema, draft 2020-12.")
    writable_by: Literal["operator", "tenant"] = Field(
        "tenant", description="Who may write a tenant's layer: operators alone, or the tenant's administrators too."
    )
    secret_readers: Annotated[list[ClientId], Field(max_length=50)] = Field(
        default_factory=list, description="The clients that may read the namespace's secrets."
    )


class SchemaOut(BaseModel):
    model_config = ConfigDict(serialize_by_alias=True)

    namespace: str
    version: int
    json_schema: dict[str, Any] = Field(alias="schema")
    writable_by: str
    secret_readers: list[str]

    @classmethod
    def of(cls, schema: NamespaceSchema) -> "SchemaOut":
        return cls(
            namespace=schema.namespace,
            version=schema.version,
            schema=schema.schema,
            writable_by=schema.writable_by,
            secret_readers=list(schema.secret_readers),
        )


class LayerOut(BaseModel):
    """What a layer says; `constrained` are the pointers at which the tenant's tier lets something else hold."""

    namespace: str
    layer: str
    name: str
    version: int
    updated_at: datetime
    document: dict[str, Any]
    constrained: list[str]

    @classmethod
    def of(cls, written: Written) -> "LayerOut":
        layer = written.document
        return cls(
            namespace=layer.namespace,
            layer=layer.layer,
            name=layer.name,
            version=layer.version,
            updated_at=written.updated_at,
            document=shown(layer.document),
            constrained=list(written.constrained),
        )


class SourceOut(BaseModel):
    """`layer` is platform, region, tier or tenant, or `constraint` for what the tier `name` forces."""

    layer: str
    name: str
    version: int

    @classmethod
    def of(cls, source: Source) -> "SourceOut":
        return cls(layer=source.layer, name=source.name, version=source.version)


class FaultOut(BaseModel):
    loc: list[str | int]
    msg: str


class EffectiveOut(BaseModel):
    namespace: str
    document: dict[str, Any]
    valid: bool
    errors: list[FaultOut]
    constrained: list[str]
    provenance: dict[str, SourceOut] | None

    @classmethod
    def of(cls, namespace: str, effective: Effective, faults: list[FieldError], *, provenance: bool) -> "EffectiveOut":
        sources = {pointer: SourceOut.of(source) for pointer, source in sorted(effective.provenance.items())}
        return cls(
            namespace=namespace,
            document=shown(effective.document),
            valid=not faults,
            errors=[FaultOut(loc=fault["loc"], msg=fault["msg"]) for fault in faults],
            constrained=list(effective.constrained),
            provenance=sources if provenance else None,
        )


class VersionOut(BaseModel):
    version: int
    created_at: datetime
    created_by: str
    deleted: bool
    rolled_back_to: int | None

    @classmethod
    def of(cls, row: ConfigVersionRow) -> "VersionOut":
        return cls(
            version=row.version,
            created_at=row.created_at,
            created_by=row.created_by,
            deleted=row.document is None,
            rolled_back_to=row.rolled_back_to,
        )


class VersionDocumentOut(VersionOut):
    document: dict[str, Any] | None

    @classmethod
    def of(cls, row: ConfigVersionRow) -> "VersionDocumentOut":
        return cls(**VersionOut.of(row).model_dump(), document=shown(row.document))


class DifferenceOut(BaseModel):
    op: str
    pointer: str
    before: Any = None
    after: Any = None

    @classmethod
    def of(cls, difference: Difference) -> "DifferenceOut":
        return cls(op=difference.op, pointer=difference.pointer, before=difference.before, after=difference.after)


class DifferencesOut(BaseModel):
    items: list[DifferenceOut]


class RollBack(BaseModel):
    model_config = ConfigDict(extra="forbid")

    version: Annotated[int, Field(ge=1, le=2**62, strict=True)]


class SecretsRead(BaseModel):
    model_config = ConfigDict(extra="forbid")

    pointers: Annotated[list[Pointer], Field(min_length=1, max_length=50)]


class SecretsOut(BaseModel):
    values: dict[str, str]
