"""The work of every step there is."""

from collections.abc import Mapping
from types import MappingProxyType

from tenant_service.domain.saga import StepName
from tenant_service.offboarding.steps import OFFBOARDING_STEPS
from tenant_service.reconciling.steps import REPAIR_STEPS
from tenant_service.runs.steps import STEPS, StepWork

WORK: Mapping[StepName, StepWork] = MappingProxyType({**STEPS, **OFFBOARDING_STEPS, **REPAIR_STEPS})
