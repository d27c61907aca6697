"""What comes in over HTTP and what goes out."""

from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from tenant_service.config.schemas import Namespace
from tenant_service.domain.documents import BadDocument, check_document
from tenant_service.domain.tiers import TierContent
from tenant_service.tenants.schemas import Code
from tenantry import FieldError, Isolation, Tier
from tenantry.config import LIMITS, merge
from tenantry.entitlements import parse_entitlements
from tenantry.limits import InvalidLimits, parse_limits

TierName = Code
MaxAge = Annotated[int, Field(strict=True, ge=0, le=100 * 366 * 86400)]

MAX_NAMES = 100


def _check_document(document: dict[str, Any]) -> dict[str, Any]:
    try:
        check_document(document)
    except BadDocument as fault:
        raise ValueError(f"{fault.pointer or '/'}: {fault}") from None
    return document


def _each_once(names: list[str]) -> list[str]:
    if len(set(names)) != len(names):
        raise ValueError("a name stands here twice")
    return names


Names = Annotated[list[Code], Field(max_length=MAX_NAMES), AfterValidator(_each_once)]
Document = Annotated[dict[str, Any], AfterValidator(_check_document)]


def _check_limits(limits: dict[str, Any], *place: str) -> None:
    try:
        parse_limits(limits)
    except InvalidLimits as error:
        errors: list[FieldError] = [{**fault, "loc": ["body", *place, *fault["loc"]]} for fault in error.errors]
        raise InvalidLimits(error.detail, errors=errors) from None


class PlacementPolicy(BaseModel):
    """Where the tier's tenants may be placed; an empty list allows every one."""

    model_config = ConfigDict(extra="forbid")

    regions: Names = Field(default_factory=list)
    stores: Names = Field(default_factory=list)
    preferred: Names = Field(default_factory=list, description="Stores that are taken before others, in this order.")


class TierPut(BaseModel):
    model_config = ConfigDict(extra="forbid")

    max_event_age_seconds: MaxAge | None = Field(
        None, description="How old a usage event may be when it is received; null: any age."
    )
    limits: Document = Field(
        default_factory=dict,
        description="Rates by class of request, concurrency, connections, weight; what is absent is unlimited.",
        examples=[{"requests": {"default": {"rate": 100, "burst": 200}}, "concurrency": 50, "connections": 4}],
    )
    entitlements: Document = Field(
        default_factory=dict,
        description="What its tenants have by feature; their plan says otherwise, but not of what is forbidden here.",
        examples=[{"sso": True, "documents": {"limit": "1000", "alerts": ["0.8"]}, "beta": {"forbid": True}}],
    )
    isolation: Isolation = Isolation.POOL
    placement: PlacementPolicy = Field(default_factory=PlacementPolicy)
    constraints: dict[Namespace, Document] = Field(
        default_factory=dict,
        description="By namespace, a JSON merge patch that is applied after every layer of configuration.",
    )

    def content(self) -> TierContent:
        """Raises `InvalidLimits` for a limit that no service knows, or that cannot be, and `InvalidEntitlements`."""
        _check_limits(self.limits, "limits")
        _check_limits(merge(self.constraints.get(LIMITS, {})), "constraints", LIMITS)
        parse_entitlements(self.entitlements, of="tier")
        return TierContent(
            max_event_age_seconds=self.max_event_age_seconds,
            limits=self.limits,
            entitlements=self.entitlements,
            isolation=self.isolation,
            placement={field: names for field, names in self.placement.model_dump().items() if names},
            constraints=self.constraints,
        )


class TierOut(BaseModel):
    name: str
    version: int
    max_event_age_seconds: int | None
    limits: dict[str, Any]
    entitlements: dict[str, Any]
    isolation: Isolation
    placement: PlacementPolicy
    constraints: dict[str, dict[str, Any]]

    @classmethod
    def of(cls, tier: Tier) -> "TierOut":
        return cls(
            name=tier.name,
            version=tier.version,
            max_event_age_seconds=tier.max_event_age_seconds,
            limits=tier.limits,
            entitlements=tier.entitlements,
            isolation=tier.isolation,
            placement=PlacementPolicy(**tier.placement),
            constraints=tier.constraints,
        )
