"""What comes in over HTTP and what goes out."""

from datetime import datetime
from typing import Annotated

from pydantic import AfterValidator, BaseModel, Field, model_validator

from tenant_service.domain.placement import StoreState
from tenant_service.stores.models import StoreRow
from tenant_service.tenants.schemas import Code, Input
from tenantry import Isolation


def _in_order(isolations: list[Isolation]) -> list[Isolation]:
    return [each for each in Isolation if each in isolations]


Capacity = Annotated[int, Field(strict=True, ge=0, le=1_000_000_000)]
Isolations = Annotated[list[Isolation], Field(min_length=1), AfterValidator(_in_order)]


class StoreCreate(Input):
    name: Code
    region: Code = Field(description="Where the cluster is. It never changes: a cluster elsewhere is another store.")
    capacity: Capacity | None = Field(None, description="How many tenants it holds at most; null: any number.")
    isolations: Isolations = Field(default_factory=lambda: list(Isolation))
    state: StoreState = StoreState.OPEN


class StoreUpdate(Input):
    """Only the fields that are sent change. A capacity below the present number of tenants moves nobody."""

    capacity: Capacity | None = None
    isolations: Isolations | None = None
    state: StoreState | None = None

    @model_validator(mode="after")
    def _only_the_capacity_is_cleared(self) -> "StoreUpdate":
        cleared = sorted(field for field in self.model_fields_set - {"capacity"} if getattr(self, field) is None)
        if cleared:
            raise ValueError(f"cannot be null: {', '.join(cleared)}")
        return self


class StoreOut(BaseModel):
    name: str
    region: str
    capacity: int | None
    isolations: list[Isolation]
    state: StoreState
    tenants: int
    version: int
    created_at: datetime
    updated_at: datetime

    @classmethod
    def of(cls, row: StoreRow) -> "StoreOut":
        return cls.model_validate(row, from_attributes=True)
