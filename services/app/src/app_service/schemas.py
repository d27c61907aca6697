"""What goes over the wire. An unknown field is refused: a client that misspells one would otherwise lose data."""

from datetime import datetime
from typing import Annotated, Self
from uuid import UUID

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, model_validator

from app_service.domain import ExportState, check_text, normalise_tags
from app_service.domain.text import MAX_FILE_NAME_LENGTH, MAX_TAG_LENGTH, MAX_TAGS, check_file_name

_readable = AfterValidator(check_text)
Title = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=300), _readable]
# A tsvector holds at most 1 MiB: 100,000 characters fit, whatever they are.
Body = Annotated[str, StringConstraints(max_length=100_000), _readable]
Tag = Annotated[
    str, StringConstraints(strip_whitespace=True, to_lower=True, min_length=1, max_length=MAX_TAG_LENGTH), _readable
]
Tags = Annotated[list[str], Field(max_length=MAX_TAGS), AfterValidator(normalise_tags)]
SearchText = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=200), _readable]
FileName = Annotated[
    str, StringConstraints(min_length=1, max_length=MAX_FILE_NAME_LENGTH), AfterValidator(check_file_name)
]


class DocumentIn(BaseModel):
    model_config = ConfigDict(extra="forbid")

    title: Title
    body: Body = ""
    tags: Tags = []


class DocumentPatch(BaseModel):
    """The fields to change; those left out stay as they are."""

    model_config = ConfigDict(extra="forbid")

    title: Title | None = None
    body: Body | None = None
    tags: Tags | None = None

    @model_validator(mode="after")
    def _states_something(self) -> Self:
        if not self.model_fields_set:
            raise ValueError("state at least one field")
        if any(getattr(self, field) is None for field in self.model_fields_set):
            raise ValueError("a field cannot be null")
        return self


class DocumentSummary(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    id: UUID
    title: str
    tags: list[str]
    version: int
    created_at: datetime
    updated_at: datetime


class DocumentOut(DocumentSummary):
    body: str


class SearchHit(DocumentSummary):
    """A document that matches, with an excerpt around the match as plain text."""

    excerpt: str


def _hex(digest: bytes | str) -> str:
    return digest.hex() if isinstance(digest, bytes) else digest


class FileOut(BaseModel):
    """An attachment: `size` in bytes, `sha256` in hex."""

    model_config = ConfigDict(from_attributes=True)

    name: str
    content_type: str
    size: int
    sha256: Annotated[str, BeforeValidator(_hex)]
    version: int
    updated_at: datetime


class ExportOut(BaseModel):
    """An archive of all documents and files: `size` in bytes, `sha256` in hex, both once it is `ready`.

    `error` says why the last attempt failed; one that is not `failed` is tried again. After `expires_at` it is gone.
    """

    id: UUID
    state: ExportState
    created_at: datetime
    expires_at: datetime
    finished_at: datetime | None
    documents: int | None
    files: int | None
    size: int | None
    sha256: str | None
    error: str | None
