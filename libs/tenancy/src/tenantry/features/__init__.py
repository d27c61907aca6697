"""Feature flags: definitions of the platform, joined with what layers and constraints say, evaluated in local memory.

`tenantry.features.openfeature` has the OpenFeature provider; it needs the extra `tenantry[features]`.
"""

from tenantry.features._evaluation import Evaluation, Reason, evaluate, part_of
from tenantry.features._features import FeatureOff, Features
from tenantry.features._flags import OFF, ON, Choice, Flag, Rollout
from tenantry.features._settings import FEATURES, Setting, active_choices, parse_setting
from tenantry.features._store import FlagStore, choices_at

__all__ = [
    "FEATURES",
    "OFF",
    "ON",
    "Choice",
    "Evaluation",
    "FeatureOff",
    "Features",
    "Flag",
    "FlagStore",
    "Reason",
    "Rollout",
    "Setting",
    "active_choices",
    "choices_at",
    "evaluate",
    "parse_setting",
    "part_of",
]
