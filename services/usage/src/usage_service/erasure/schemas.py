"""What is asked of an erasure, and its report."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, StringConstraints
from sqlalchemy import Row

from usage_service.erasure.service import what_is_kept

Value = Annotated[str, StringConstraints(min_length=1, max_length=256, pattern=r"^[^\x00]*$")]
PathText = Annotated[str, StringConstraints(min_length=2, max_length=512, pattern=r"^[^\x00]*$")]


class ErasureIn(BaseModel):
    """The values of one person: everything that names them in events."""

    model_config = ConfigDict(extra="forbid")

    tenant_id: Annotated[str, StringConstraints(min_length=1, max_length=128)] | None = Field(
        default=None, description="Id or external id; a credential of a tenant may leave it out."
    )
    values: list[Value] = Field(min_length=1, max_length=20)
    paths: list[PathText] | None = Field(
        default=None,
        min_length=1,
        max_length=20,
        description="Where in the data, such as $.user_id; without, wherever a text of the data is a value.",
    )
    attributes: bool = Field(default=False, description="Look at the source and id of events too.")
    accept_differing_figures: bool = Field(
        default=False, description="Erase although a meter's filter tells a value from its pseudonym."
    )


class ErasedValue(BaseModel):
    hash: str = Field(description="HMAC-SHA256 of the value under the salt, in hex.")


class KeptOut(BaseModel):
    what: str
    why: str
    until: datetime | None


class ErasureOut(BaseModel):
    """The report. It has hashes of the values under a salt of its own, and never a value."""

    id: UUID
    tenant_id: UUID
    state: Literal["waiting", "running", "done"]
    step: str
    days_left: int
    days_planned: int | None
    problem: str | None = Field(description="What stood in the way the last time; it is tried again.")
    asked_by: str
    asked_at: datetime
    finished_at: datetime | None
    salt: str
    values: list[ErasedValue]
    paths: list[str] | None
    attributes: bool
    differing_meters: list[str]
    rows: dict[str, int] = Field(description="Rows that were changed, by place.")
    kept: list[KeptOut]

    @classmethod
    def of(cls, row: Row[Any]) -> ErasureOut:
        return cls(
            id=row.id,
            tenant_id=row.tenant_id,
            state=row.step if row.step in {"waiting", "done"} else "running",
            step=row.step,
            days_left=row.days_left,
            days_planned=row.days_planned,
            problem=row.problem,
            asked_by=row.asked_by,
            asked_at=row.asked_at,
            finished_at=row.finished_at,
            salt=bytes(row.salt).hex(),
            values=[ErasedValue(hash=each) for each in row.hashes],
            paths=row.paths,
            attributes=row.attributes,
            differing_meters=row.telling_meters,
            rows=row.places or {},
            kept=[KeptOut(what=each.what, why=each.why, until=each.until) for each in what_is_kept(row.asked_at)],
        )
