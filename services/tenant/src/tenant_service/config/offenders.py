"""Who would be left with configuration that breaks its schema, when a schema or a wider layer changes."""

import asyncio
from collections.abc import Sequence
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from tenant_service.config import repository
from tenant_service.config.models import ConfigLayerRow
from tenant_service.config.places import Place
from tenant_service.config.repository import layer_document
from tenant_service.domain.config_schemas import NamespaceRules
from tenant_service.models import TierRow
from tenant_service.tiers.repository import tier_document
from tenantry import Conflict, FieldError, InvalidRequest
from tenantry.config import Constraint, Layer, LayerDocument, constraint_of, merge, resolve

SHOWN_OFFENDERS = 20
TENANTS_AT_ONCE = 500


class InvalidConfig(InvalidRequest):
    """What a document says does not satisfy the schema of its namespace."""

    type = "invalid-config"
    title = "The configuration does not satisfy its schema"


class ConfigConflict(Conflict):
    """A change that would leave others with an invalid document; `errors` names them. It may be forced."""

    type = "config-conflict"
    title = "Others would be left with an invalid configuration"


async def check_those_below(
    session: AsyncSession, place: Place, rules: NamespaceRules, proposed: LayerDocument, *, force: bool
) -> None:
    """Raises `ConfigConflict` where a tenant with a document of its own would be left with an invalid one."""
    if not force:
        refuse(await _tenants(session, place, place.namespace, rules, proposed))


async def check_everybody(session: AsyncSession, namespace: str, rules: NamespaceRules) -> None:
    """Raises `ConfigConflict` where a layer or a tenant's effective document breaks `rules`."""
    faults: list[FieldError] = []
    for row in await repository.upper_layers(session, namespace):
        faults += _first(rules.faults_of_layer(merge(row.document or {})), row.layer, row.name)
    refuse(faults or await _tenants(session, None, namespace, rules, None))


def refuse(faults: Sequence[FieldError]) -> None:
    """Raises `ConfigConflict` unless there is no fault."""
    if faults:
        raise ConfigConflict(
            "The change would leave others with an invalid document; ?force=true makes it nevertheless",
            errors=faults[:SHOWN_OFFENDERS],
        )


async def _tenants(
    session: AsyncSession, place: Place | None, namespace: str, rules: NamespaceRules, proposed: LayerDocument | None
) -> list[FieldError]:
    above = {(row.layer, row.name): layer_document(row) for row in await repository.upper_layers(session, namespace)}
    if proposed is not None:
        above[proposed.layer, proposed.name] = proposed
    tiers: dict[str, Constraint | None] = {}
    faults: list[FieldError] = []
    after: UUID | None = None
    while len(faults) < SHOWN_OFFENDERS:
        found = await repository.tenants_with_layer(session, place, namespace, after=after, limit=TENANTS_AT_ONCE)
        for tier in {tier for _, _, tier in found} - tiers.keys():
            row = await session.get(TierRow, tier)
            tiers[tier] = None if row is None else constraint_of(tier_document(row), namespace)

        def check(page: Sequence[tuple[ConfigLayerRow, str | None, str]] = found) -> list[FieldError]:
            broken: list[FieldError] = []
            for row, region, tier in page:
                effective = resolve([*_chain(above, region, tier), layer_document(row)], tiers[tier])
                broken += _first(rules.faults(effective.document), row.layer, row.name)
            return broken

        # A page is some hundred thousand steps of Python: requests go on meanwhile.
        faults += await asyncio.to_thread(check)
        if len(found) < TENANTS_AT_ONCE:
            break
        after = found[-1][0].tenant_id
    return faults


def _chain(above: dict[tuple[str, str], LayerDocument], region: str | None, tier: str) -> list[LayerDocument]:
    names = ((Layer.PLATFORM, ""), (Layer.REGION, region or ""), (Layer.TIER, tier))
    return [above[place] for layer, name in names if (place := (layer.value, name)) in above]


def _first(faults: Sequence[FieldError], layer: str, name: str) -> list[FieldError]:
    """One line for each offender is enough to find it."""
    return [{"loc": [layer, name, *faults[0]["loc"]], "msg": faults[0]["msg"]}] if faults else []
