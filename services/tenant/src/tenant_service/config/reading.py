"""Use cases of reading: what holds for a tenant, and what has changed. The caller opens the transaction."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy.ext.asyncio import AsyncSession

from tenant_service import audit
from tenant_service.config import repository
from tenant_service.config.parties import Subject, Writer
from tenant_service.config.places import Place
from tenant_service.config.secrets import data_key, shown
from tenant_service.domain.config_schemas import NamespaceRules
from tenantry import FieldError, NotFound, PermissionDenied, Tier
from tenantry.config import (
    LIMITS,
    Difference,
    Effective,
    Layer,
    LayerDocument,
    constraint_of,
    differences,
    is_secret,
    resolve,
    split,
    with_limits_of,
)
from tenantry.features import FEATURES, choices_at


async def compare(session: AsyncSession, place: Place, before: int, after: int | None) -> Sequence[Difference]:
    """What differs between two versions; 0 is the empty layer of the beginning, None what the layer says now.

    Secrets are shown as `shown` shows them. Raises `NotFound`.
    """
    first = {} if before == 0 else (await repository.find_version(session, place, before)).document
    if after is None:
        row = await repository.find_layer(session, place)
        second = None if row is None else row.document
    else:
        second = {} if after == 0 else (await repository.find_version(session, place, after)).document
    return [
        Difference(change.op, change.pointer, before=shown(change.before), after=shown(change.after))
        for change in differences(first or {}, second or {})
    ]


async def effective(session: AsyncSession, subject: Subject, namespace: str, *, now: datetime) -> Effective:
    """What holds for a tenant, secrets as they are stored. Raises `UnknownNamespace`."""
    await repository.find_schema(session, namespace)
    return resolved(await layers_of(session, subject, namespace), subject.tier, namespace, present_of(subject, now))


async def faults_of(session: AsyncSession, namespace: str, found: Effective) -> list[FieldError]:
    """What of an effective document does not satisfy the present schema: after a forced change, or for a constraint."""
    return NamespaceRules((await repository.find_schema(session, namespace)).schema).faults(found.document)


async def reveal(
    session: AsyncSession, subject: Subject, namespace: str, pointers: Sequence[str], reader: str, writer: Writer
) -> dict[str, str]:
    """The values of secrets of the effective document, for the client `reader`; audited by name.

    Raises `PermissionDenied` for a client that the namespace does not name, `NotFound` for what is no set secret.
    """
    schema = await repository.find_schema(session, namespace)
    if reader not in schema.secret_readers:
        raise PermissionDenied(f"The namespace {namespace} does not name this client among its secret_readers")
    found = resolved(
        await layers_of(session, subject, namespace), subject.tier, namespace, present_of(subject, writer.now)
    )
    values = {}
    for pointer in pointers:
        stored = value_at(found.document, pointer)
        source = found.provenance.get(pointer)
        if not is_secret(stored) or source is None:
            raise NotFound("There is no such secret")
        place = Place(Layer(source.layer), source.name, namespace)
        key = await data_key(session, writer.master_key, place.owner_id, now=writer.now)
        values[pointer] = key.open(stored, place, pointer)
    await audit.record(
        session,
        writer.actor,
        "config.secrets_read",
        target=f"config/{namespace}",
        chain_id=subject.tenant.id,
        now=writer.now,
        detail={"pointers": sorted(pointers)},
    )
    return values


async def layers_of(session: AsyncSession, subject: Subject, namespace: str) -> list[LayerDocument]:
    """What every layer above the tenant and its own says, the widest first."""
    tenant = subject.tenant
    return await repository.layers_for(session, namespace, region=tenant.region, tier=tenant.tier, tenant_id=tenant.id)


def resolved(layers: Sequence[LayerDocument], tier: Tier | None, namespace: str, now: datetime) -> Effective:
    """What layers add up to under a tier, as its namespace is merged."""
    if namespace == FEATURES:
        return choices_at(layers, tier, now)[0]
    if namespace == LIMITS:
        layers = with_limits_of(tier, layers)
    return resolve(layers, constraint_of(tier, namespace))


def present_of(subject: Subject, now: datetime) -> datetime:
    """The time of the tenant, which its test clock may have."""
    return now if subject.tenant.clock is None else subject.tenant.clock.now


def value_at(document: Mapping[str, Any], pointer: str) -> Any:
    """What stands there; None for nothing, and for what would be inside of a secret."""
    value: Any = document
    for key in split(pointer):
        value = value.get(key) if isinstance(value, dict) and not is_secret(value) else None
    return value
