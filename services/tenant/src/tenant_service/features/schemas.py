"""What comes in over HTTP and what goes out."""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StrictBool, StringConstraints, model_validator

from tenant_service.config.schemas import SourceOut
from tenant_service.domain.documents import BadDocument, check_document
from tenant_service.tiers.schemas import TierName
from tenantry.features import OFF, ON, Evaluation, Flag, Reason

FlagName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9](?:[a-z0-9_.-]{0,62}[a-z0-9])?$")]
VariantName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")]
Choice = StrictBool | VariantName

BOOLEAN = {ON: True, OFF: False}
MAX_VARIANTS = 50


def _check_variants(variants: dict[str, Any]) -> dict[str, Any]:
    try:
        check_document(variants)
    except BadDocument as error:
        raise ValueError(f"{error} at {error.pointer or '/'}") from None
    if any(value is None for value in variants.values()):
        raise ValueError("the value of a variant is not null")
    return variants


def _check_percentage(percentage: float) -> float:
    if round(percentage, 2) != percentage:
        raise ValueError("a percentage has two decimal places at most")
    return percentage


Variants = Annotated[
    dict[VariantName, Any], Field(min_length=1, max_length=MAX_VARIANTS), AfterValidator(_check_variants)
]


class RolloutBody(BaseModel):
    model_config = ConfigDict(extra="forbid")

    percentage: Annotated[
        float, Field(ge=0, le=100, allow_inf_nan=False, strict=True), AfterValidator(_check_percentage)
    ]
    variant: Choice = Field(True, description="What the tenants inside get.")
    per_key: StrictBool = Field(
        False, description="Whether the caller's key, such as a user, counts beside the tenant."
    )


class FlagPut(BaseModel):
    """Without `variants` the flag is a boolean: `on` and `off`, also written true and false."""

    model_config = ConfigDict(extra="forbid")

    description: Annotated[str, StringConstraints(max_length=500, pattern=r"^[^\x00]*$")] = ""
    enabled: StrictBool = True
    variants: Variants = Field(default_factory=lambda: dict(BOOLEAN))
    default: Choice = False
    tiers: Annotated[dict[TierName, Choice], Field(max_length=200)] = Field(default_factory=dict)
    rollout: RolloutBody | None = None
    writable_by: Literal["operator", "tenant"] = "operator"

    @model_validator(mode="after")
    def _choices_are_variants(self) -> "FlagPut":
        rollout = [] if self.rollout is None else [self.rollout.variant]
        wrong = [choice for choice in (self.default, *self.tiers.values(), *rollout) if self._name(choice) is None]
        if wrong:
            raise ValueError(f"not a variant: {', '.join(map(str, wrong))}")
        return self

    def definition(self) -> dict[str, Any]:
        """As it is stored: every choice by the name of its variant."""
        return {
            "description": self.description,
            "enabled": self.enabled,
            "variants": self.variants,
            "default": self._name(self.default),
            "tiers": {tier: self._name(choice) for tier, choice in self.tiers.items()},
            "rollout": self.rollout
            and {
                "variant": self._name(self.rollout.variant),
                "percentage": self.rollout.percentage,
                "per_key": self.rollout.per_key,
            },
            "writable_by": self.writable_by,
        }

    def _name(self, choice: bool | str) -> str | None:
        return Flag(name="", version=0, variants=self.variants, default="").variant_of(choice)


class RolloutOut(BaseModel):
    variant: str
    percentage: float
    per_key: bool


class FlagOut(BaseModel):
    name: str
    version: int
    description: str
    enabled: bool
    variants: dict[str, Any]
    default: str
    tiers: dict[str, str]
    rollout: RolloutOut | None
    writable_by: str

    @classmethod
    def of(cls, flag: Flag) -> "FlagOut":
        rollout = flag.rollout
        return cls(
            name=flag.name,
            version=flag.version,
            description=flag.description,
            enabled=flag.enabled,
            variants=flag.variants,
            default=flag.default,
            tiers=flag.tiers,
            rollout=rollout
            and RolloutOut(variant=rollout.variant, percentage=rollout.percentage, per_key=rollout.per_key),
            writable_by=flag.writable_by,
        )


class FeatureOut(BaseModel):
    """A flag for one tenant; `source` is the layer or constraint that decides, where one does."""

    name: str
    value: Any
    variant: str
    reason: Reason
    source: SourceOut | None

    @classmethod
    def of(cls, evaluation: Evaluation) -> "FeatureOut":
        source = evaluation.source
        return cls(
            name=evaluation.flag,
            value=evaluation.value,
            variant=evaluation.variant,
            reason=evaluation.reason,
            source=source and SourceOut.of(source),
        )
