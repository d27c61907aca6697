"""The OpenFeature provider: `openfeature.api.set_provider(TenantryProvider(tenancy.features))`."""

from collections.abc import Mapping, Sequence
from typing import TypeVar
from uuid import UUID

from openfeature.evaluation_context import EvaluationContext
from openfeature.exception import ErrorCode
from openfeature.flag_evaluation import FlagResolutionDetails, Reason
from openfeature.provider import AbstractProvider, Metadata

from tenantry._context import current_tenant_or_none
from tenantry._tenant import Tenant
from tenantry.features._features import Features

__all__ = ["TenantryProvider"]

Object = Sequence["bool | int | float | str | Object"] | Mapping[str, "bool | int | float | str | Object"]
T = TypeVar("T")


class TenantryProvider(AbstractProvider):
    """Evaluates flags for the current tenant, from local memory.

    Outside a tenant's scope the evaluation context may name one, in the attribute `tenant_id`; inside, it may name no
    other. `targeting_key` is the key that splits a tenant where the rollout says so.
    """

    def __init__(self, features: Features) -> None:
        super().__init__()
        self._features = features

    def get_metadata(self) -> Metadata:
        return Metadata(name="tenantry")

    def resolve_boolean_details(
        self, flag_key: str, default_value: bool, evaluation_context: EvaluationContext | None = None
    ) -> FlagResolutionDetails[bool]:
        return self._resolve(flag_key, default_value, bool, evaluation_context)

    def resolve_string_details(
        self, flag_key: str, default_value: str, evaluation_context: EvaluationContext | None = None
    ) -> FlagResolutionDetails[str]:
        return self._resolve(flag_key, default_value, str, evaluation_context)

    def resolve_integer_details(
        self, flag_key: str, default_value: int, evaluation_context: EvaluationContext | None = None
    ) -> FlagResolutionDetails[int]:
        return self._resolve(flag_key, default_value, int, evaluation_context)

    def resolve_float_details(
        self, flag_key: str, default_value: float, evaluation_context: EvaluationContext | None = None
    ) -> FlagResolutionDetails[float]:
        details = self._resolve(flag_key, default_value, (int, float), evaluation_context)
        details.value = float(details.value)  # a variant may be written 3, and OpenFeature insists on 3.0
        return details

    def resolve_object_details(
        self, flag_key: str, default_value: Object, evaluation_context: EvaluationContext | None = None
    ) -> FlagResolutionDetails[Object]:
        return self._resolve(flag_key, default_value, (dict, list), evaluation_context)

    def _resolve(
        self,
        name: str,
        default: T,
        kinds: type | tuple[type, ...],
        context: EvaluationContext | None,
    ) -> FlagResolutionDetails[T]:
        tenant = self._tenant(context)
        if tenant is None:
            return _failed(default, ErrorCode.INVALID_CONTEXT, "there is no tenant, or another one is current")
        key = None if context is None else context.targeting_key
        evaluation = self._features.evaluate(name, key=key, tenant=tenant)
        if evaluation is None:
            return _failed(default, ErrorCode.FLAG_NOT_FOUND, f"there is no flag {name!r}")
        if not _is_of(kinds, evaluation.value):
            return _failed(default, ErrorCode.TYPE_MISMATCH, f"{name!r} is not of the type that is asked for")
        source = evaluation.source
        return FlagResolutionDetails(
            value=evaluation.value,
            variant=evaluation.variant,
            reason=Reason(evaluation.reason.value),
            flag_metadata={} if source is None else {"layer": source.layer, "version": source.version},
        )

    def _tenant(self, context: EvaluationContext | None) -> Tenant | None:
        current = current_tenant_or_none()
        named = None if context is None else context.attributes.get("tenant_id")
        if named is None:
            return current
        known = self._features.directory.resolve(str(named)) if isinstance(named, str | UUID) else None
        return known if current is None or (known is not None and known.id == current.id) else None


def _is_of(kinds: type | tuple[type, ...], value: object) -> bool:
    # To Python a boolean is an integer; to whoever asks for a number it is not.
    return isinstance(value, kinds) and (kinds is bool or not isinstance(value, bool))


def _failed(default: T, code: ErrorCode, message: str) -> FlagResolutionDetails[T]:
    return FlagResolutionDetails(value=default, reason=Reason.ERROR, error_code=code, error_message=message)
