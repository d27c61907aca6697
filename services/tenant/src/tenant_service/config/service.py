"""Use cases of layers. The caller opens the transaction and commits it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import msgspec
from sqlalchemy import insert
from sqlalchemy.ext.asyncio import AsyncSession

from tenant_service import audit
from tenant_service.branding.logos import check_logo
from tenant_service.config import repository
from tenant_service.config.models import ConfigLayerRow, ConfigVersionRow
from tenant_service.config.offenders import InvalidConfig, check_those_below
from tenant_service.config.parties import Subject, Writer
from tenant_service.config.places import Place
from tenant_service.config.reading import layers_of, present_of, resolved, value_at
from tenant_service.config.repository import layer_document
from tenant_service.config.secrets import DataKey, data_key, published, shown
from tenant_service.domain.config_schemas import NamespaceRules, secret_values
from tenant_service.domain.documents import BadDocument, check_document
from tenant_service.features.settings import check_settings
from tenant_service.publication import LayerWithdrawn, publish_layer, tell, withdraw_layer
from tenant_service.tiers.repository import find_tier, tier_document
from tenantry import (
    Conflict,
    FieldError,
    InvalidRequest,
    NotFound,
    PermissionDenied,
    StaleVersion,
    Tenant,
)
from tenantry.config import (
    BRANDING,
    LIMITS,
    Difference,
    Layer,
    LayerDocument,
    constraint_of,
    differences,
    is_secret,
    merge,
    same,
    split,
)
from tenantry.features import FEATURES
from tenantry.http import ABSENT
from tenantry.limits import InvalidLimits, parse_limits

AUDITED_KEYS = 100

_EVENT_OF: Mapping[str, str] = {
    BRANDING: "branding_changed",
    FEATURES: "feature_changed",
    LIMITS: "limits_changed",
}


class OperatorOnly(PermissionDenied):
    """The namespace is not for tenants to write."""

    type = "operator-only"
    title = "Only operators may write this namespace"


class LimitsOfTier(Conflict):
    """A tier has its limits in one place, which is the tier."""

    type = "limits-of-tier"
    title = "The limits of a tier stand in the tier"


@dataclass(frozen=True, slots=True)
class Written:
    """A layer as it is after a write. `constrained` are its values that the tier does not let hold."""

    document: LayerDocument
    updated_at: datetime
    created: bool = False
    changed: bool = False
    constrained: tuple[str, ...] = ()


async def get_layer(session: AsyncSession, place: Place) -> Written:
    """What the layer says. Raises `UnknownNamespace`, and `NotFound` where it says nothing."""
    await repository.find_schema(session, place.namespace)
    row = await repository.find_layer(session, place)
    if row is None or row.document is None:
        raise NotFound("The layer says nothing")
    return Written(layer_document(row), row.updated_at)


async def put_layer(
    session: AsyncSession,
    place: Place,
    document: Mapping[str, Any],
    writer: Writer,
    *,
    subject: Subject | None = None,
    expected_version: int | None = None,
    force: bool = False,
) -> Written:
    """Make `document` what the layer says: a version, published, audited. Repeating it changes nothing.

    `subject` is the tenant of a tenant's layer, locked. The values that are there must satisfy the schema, and a
    tenant's effective document all of it; a wider layer must leave the tenants below it valid, unless `force` is set.
    Raises `UnknownNamespace`, `StaleVersion`, `InvalidConfig`, `OperatorOnly`, `KeyDestroyed`, `ConfigConflict`.
    """
    row, rules = await _open(session, place, writer, subject, expected_version)
    sealed = await _sealed(session, rules, place, document, row.document or {}, writer)
    return await _store(session, row, place, sealed, rules, writer, subject=subject, force=force)


async def patch_layer(
    session: AsyncSession,
    place: Place,
    patch: Mapping[str, Any],
    writer: Writer,
    *,
    subject: Subject | None = None,
    expected_version: int | None = None,
) -> Written:
    """Replace some keys at the top of what the layer says; None takes a key away. Raises as `put_layer` does."""
    row, rules = await _open(session, place, writer, subject, expected_version)
    document = {**shown(row.document or {}), **patch}
    document = {key: value for key, value in document.items() if key not in patch or value is not None}
    sealed = await _sealed(session, rules, place, document, row.document or {}, writer)
    if row.document is None and not sealed:
        return Written(layer_document(row), row.updated_at)
    return await _store(session, row, place, sealed, rules, writer, subject=subject, force=False)


async def delete_layer(
    session: AsyncSession,
    place: Place,
    writer: Writer,
    *,
    subject: Subject | None = None,
    expected_version: int | None = None,
    force: bool = False,
) -> None:
    """Let the layer say nothing. May be repeated. Raises as `put_layer` does."""
    row, rules = await _open(session, place, writer, subject, expected_version)
    await _store(session, row, place, None, rules, writer, subject=subject, force=force)


async def roll_back(
    session: AsyncSession,
    place: Place,
    version: int,
    writer: Writer,
    *,
    subject: Subject | None = None,
    expected_version: int | None = None,
    force: bool = False,
) -> Written:
    """Say again what version `version` said, secrets included, as a new version.

    Raises as `put_layer` does, and `NotFound` where there is no such version.
    """
    row, rules = await _open(session, place, writer, subject, expected_version)
    wanted = await repository.find_version(session, place, version)
    return await _store(
        session, row, place, wanted.document, rules, writer, subject=subject, force=force, rolled_back_to=version
    )


async def configure_tenant(
    session: AsyncSession, tenant: Tenant, documents: Mapping[str, Mapping[str, Any]], writer: Writer
) -> None:
    """What a tenant is created with: namespace -> document. Raises as `put_layer` does, with the namespace in `loc`."""
    if not documents:
        return
    subject = Subject(tenant, tier_document(await find_tier(session, tenant.tier)))
    for namespace, document in documents.items():
        try:
            check_document(dict(document))
        except BadDocument as error:
            loc = ["body", "config", namespace, *split(error.pointer)]
            raise InvalidConfig(str(error), errors=[{"loc": [*loc], "msg": str(error)}]) from None
    # Sorted, so that two tenants that are created at once lock the namespaces in one order.
    for namespace, document in sorted(documents.items()):
        try:
            await put_layer(session, subject.place(namespace), document, writer, subject=subject)
        except (InvalidRequest, repository.UnknownNamespace) as error:
            faults = error.errors or [FieldError(loc=["body"], msg=error.detail)]
            raise InvalidConfig(
                f"The configuration of {namespace} is not valid",
                errors=[
                    {"loc": ["body", "config", namespace, *fault["loc"][1:]], "msg": fault["msg"]} for fault in faults
                ],
            ) from None


async def _open(
    session: AsyncSession, place: Place, writer: Writer, subject: Subject | None, expected_version: int | None
) -> tuple[ConfigLayerRow, NamespaceRules]:
    """The layer's row, locked, and the rules that hold for it until the transaction ends."""
    if (place.layer, place.namespace) == (Layer.TIER, LIMITS):
        raise LimitsOfTier(f"Say it in the tier itself: PUT /v1/tiers/{place.name} with limits")
    schema = await repository.find_schema(session, place.namespace, lock=subject is None, share=subject is not None)
    if schema.writable_by == "operator" and not writer.is_operator:
        raise OperatorOnly(f"The namespace {place.namespace} is written by operators alone")
    nothing = ConfigLayerRow(
        namespace=place.namespace,
        layer=place.layer.value,
        name=place.name,
        tenant_id=place.tenant_id,
        version=0,
        document=None,
        updated_at=writer.now,
    )
    row = await repository.lock_layer(session, place, new=nothing)
    if expected_version is None:
        return row, NamespaceRules(schema.schema)
    # What a layer said before it was deleted has versions, too; there is nothing all the same.
    present = ABSENT if row.document is None else row.version
    if expected_version != present:
        raise StaleVersion(f"The present version is {present}" if present else "There is no document")
    return row, NamespaceRules(schema.schema)


async def _sealed(
    session: AsyncSession,
    rules: NamespaceRules,
    place: Place,
    document: Mapping[str, Any],
    present: Mapping[str, Any],
    writer: Writer,
) -> dict[str, Any]:
    """The document as it is stored. A secret that is sent back as it is shown, or with the value it has, is kept."""
    sealed: dict[str, Any] = _copied(document)
    key: DataKey | None = None
    for pointer, holder, name, value in secret_values(rules, sealed):
        kept = value_at(present, pointer)
        if isinstance(value, dict) and value.get("secret") is True and is_secret(kept):
            holder[name] = kept
            continue
        faults = rules.faults_of_secret(pointer, value)
        if faults or not isinstance(value, str):
            raise InvalidConfig(
                "A secret is not valid",
                errors=_in_body(faults or [{"loc": [*split(pointer)], "msg": "a secret is a string"}]),
            )
        key = key or await data_key(session, writer.master_key, place.owner_id, now=writer.now)
        unchanged = is_secret(kept) and key.open(kept, place, pointer) == value
        holder[name] = kept if unchanged else key.seal(value, place, pointer, writer.now)
    return sealed


async def _store(
    session: AsyncSession,
    row: ConfigLayerRow,
    place: Place,
    document: dict[str, Any] | None,
    rules: NamespaceRules,
    writer: Writer,
    *,
    subject: Subject | None,
    force: bool,
    rolled_back_to: int | None = None,
) -> Written:
    before, created = row.document, row.document is None
    if (before is None and document is None) or (
        before is not None and document is not None and same(before, document)
    ):
        return Written(layer_document(row), row.updated_at)
    changes = differences(before or {}, document or {})
    said = merge(document or {})
    await _check_layer(session, place, rules, said, changes, writer)
    proposed = LayerDocument(
        layer=place.layer, name=place.name, namespace=place.namespace, version=row.version + 1, document=said
    )
    constrained: tuple[str, ...] = ()
    if subject is None:
        await check_those_below(session, place, rules, proposed, force=force)
    else:
        constrained = await _check_subject(session, subject, rules, proposed, writer.now)
    row.document, row.version, row.updated_at = document, row.version + 1, writer.now
    await session.flush()
    await session.execute(
        insert(ConfigVersionRow),
        [
            {
                "namespace": place.namespace,
                "layer": place.layer.value,
                "name": place.name,
                "version": row.version,
                "tenant_id": place.tenant_id,
                "document": document,
                "rolled_back_to": rolled_back_to,
                "created_at": writer.now,
                "created_by": writer.actor.subject,
            }
        ],
    )
    stored = layer_document(row)
    await _publish(session, place, stored, gone=document is None)
    action = "config.delete" if document is None else "config.put"
    detail: dict[str, Any] = {"version": row.version, "keys": [change.pointer for change in changes[:AUDITED_KEYS]]}
    if len(changes) > AUDITED_KEYS:
        detail["more_keys"] = len(changes) - AUDITED_KEYS
    if rolled_back_to is not None:
        action = "config.roll_back"
        detail["rolled_back_to"] = rolled_back_to
    if subject is not None:
        event = "config_rolled_back" if rolled_back_to is not None else _EVENT_OF.get(place.namespace, "config_changed")
        await tell(session, subject.tenant, event, {"namespace": place.namespace, **detail})
    if constrained:
        detail["constrained"] = list(constrained)
    if force and subject is None:
        detail["forced"] = True
    await audit.record(
        session,
        writer.actor,
        action,
        target=place.key,
        chain_id=place.tenant_id or audit.PLATFORM_CHAIN,
        now=writer.now,
        detail=detail,
    )
    return Written(stored, row.updated_at, created=created, changed=True, constrained=constrained)


async def _check_layer(
    session: AsyncSession,
    place: Place,
    rules: NamespaceRules,
    said: Mapping[str, Any],
    changes: Sequence[Difference],
    writer: Writer,
) -> None:
    """Raises `InvalidConfig` where what the layer says breaks the rules, whatever the others say."""
    faults = rules.faults_of_layer(said)
    if place.namespace == FEATURES:
        changed_flags = {split(change.pointer)[0] for change in changes}
        faults += await check_settings(session, said, changed_flags, is_operator=writer.is_operator)
    elif place.namespace == LIMITS:
        # Each layer by itself, so that no change of another one, or of a tier, leaves a tenant without limits.
        faults = _faults_of_limits(said)
    elif place.namespace == BRANDING and not faults:
        faults = await check_logo(session, said, place.tenant_id)
    if faults:
        raise InvalidConfig("The document does not satisfy the schema", errors=_in_body(faults))


def _faults_of_limits(said: Mapping[str, Any]) -> list[FieldError]:
    try:
        parse_limits(said)
    except InvalidLimits as error:
        return list(error.errors)
    return []


async def _check_subject(
    session: AsyncSession, subject: Subject, rules: NamespaceRules, proposed: LayerDocument, now: datetime
) -> tuple[str, ...]:
    """Raises `InvalidConfig` where the tenant's effective document would break the schema.

    Returns which values of the tenant's own the tier's constraint does not let hold.
    """
    above = [
        layer for layer in await layers_of(session, subject, proposed.namespace) if layer.layer is not Layer.TENANT
    ]
    found = resolved([*above, proposed], subject.tier, proposed.namespace, present_of(subject, now))
    faults = rules.faults(found.document)
    if faults:
        raise InvalidConfig("The effective document would not satisfy the schema", errors=_in_body(faults))
    if constraint_of(subject.tier, proposed.namespace) is None:
        return ()
    own = resolved([proposed], None, proposed.namespace, present_of(subject, now)).provenance
    return tuple(pointer for pointer in found.constrained if pointer in own)


async def _publish(session: AsyncSession, place: Place, stored: LayerDocument, *, gone: bool) -> None:
    if gone:
        withdrawn = LayerWithdrawn(place.layer, place.name, place.namespace)
        await withdraw_layer(session, withdrawn, stored.version, place.tenant_id)
        return
    outside = msgspec.structs.replace(stored, document=published(stored.document))
    await publish_layer(session, outside, place.tenant_id)


def _in_body(faults: Sequence[FieldError]) -> list[FieldError]:
    return [{"loc": ["body", *fault["loc"]], "msg": fault["msg"]} for fault in faults]


def _copied(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _copied(member) for key, member in value.items()}
    return [_copied(item) for item in value] if isinstance(value, list) else value
