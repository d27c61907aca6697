"""Use cases of schemas. The caller opens the transaction and commits it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import insert
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncSession

from tenant_service import audit
from tenant_service.audit import Actor
from tenant_service.config import repository
from tenant_service.config.models import ConfigSchemaRow, ConfigSchemaVersionRow
from tenant_service.config.offenders import check_everybody
from tenant_service.config.repository import schema_document
from tenant_service.domain.config_schemas import BadSchema, NamespaceRules, check_schema
from tenant_service.publication import publish_schema
from tenantry import Conflict, InvalidRequest, StaleVersion
from tenantry.config import LIMITS, NamespaceSchema, same, split
from tenantry.features import FEATURES


class InvalidSchema(InvalidRequest):
    """What was sent is no schema that can be used."""

    type = "invalid-schema"
    title = "The schema cannot be used"


class SecretsInUse(Conflict):
    """A value that somebody has written does not become a secret, or stop being one, by a new schema.

    It has been published and is in past versions; take another key.
    """

    type = "secrets-in-use"
    title = "Which keys are secret cannot change while they hold values"


class BuiltIn(Conflict):
    """The namespaces `features` and `limits` are read by code that knows their form."""

    type = "built-in-namespace"
    title = "The schema of this namespace is fixed"


@dataclass(frozen=True, slots=True)
class SchemaContent:
    """What is said about a namespace."""

    schema: Mapping[str, Any]
    writable_by: str
    secret_readers: Sequence[str]


async def put_schema(
    session: AsyncSession,
    namespace: str,
    content: SchemaContent,
    *,
    expected_version: int | None,
    force: bool,
    actor: Actor,
    now: datetime,
) -> tuple[NamespaceSchema, bool]:
    """Make `content` the schema of the namespace, and say whether the namespace is new. Repeating changes nothing.

    Raises `InvalidSchema`, `StaleVersion`, `SecretsInUse`, and `ConfigConflict` where documents that exist break the
    schema, unless `force` is set: they then stay as they are and are reported as not valid.
    """
    if namespace == FEATURES:
        raise BuiltIn("The namespace features is described by its flags")
    if namespace == LIMITS:
        raise BuiltIn("The namespace limits holds what the limits of a tier hold")
    try:
        rules = check_schema(content.schema)
    except BadSchema as error:
        raise InvalidSchema(
            str(error), errors=[{"loc": ["body", "schema", *split(error.pointer)], "msg": str(error)}]
        ) from None
    values = {
        "schema": dict(content.schema),
        "writable_by": content.writable_by,
        "secret_readers": sorted(set(content.secret_readers)),
    }
    version_zero = {"namespace": namespace, "version": 0, "published": False, "updated_at": now, **values}
    inserted = upsert(ConfigSchemaRow).values(version_zero).on_conflict_do_nothing()
    created = (await session.execute(inserted.returning(ConfigSchemaRow.namespace))).scalar_one_or_none() is not None
    row = await repository.find_schema(session, namespace, lock=True)
    if expected_version is not None and expected_version != row.version:
        raise StaleVersion(f"The present version is {row.version}")
    if not created:
        if all(same(getattr(row, column), value) for column, value in values.items()):
            return schema_document(row), False
        moved = sorted(rules.secrets ^ NamespaceRules(row.schema).secrets)
        used = await repository.uses_of_pointer(session, namespace, moved)
        if used is not None:
            raise SecretsInUse(f"{used} holds a value in some version of some layer")
        if not force:
            await check_everybody(session, namespace, rules)
    for column, value in values.items():
        setattr(row, column, value)
    row.version += 1
    row.published, row.updated_at = True, now
    await session.flush()
    version = {
        "namespace": namespace, "version": row.version, "created_at": now, "created_by": actor.subject, **values
    }  # fmt: skip
    await session.execute(insert(ConfigSchemaVersionRow), [version])
    await publish_schema(session, schema_document(row))
    await audit.record(
        session,
        actor,
        "config_schema.put",
        target=f"config-schema/{namespace}",
        now=now,
        detail={
            "version": row.version,
            "writable_by": row.writable_by,
            "secret_readers": row.secret_readers,
            "forced": force,
        },
    )
    return schema_document(row), created


async def publish_unpublished_schemas(session: AsyncSession) -> int:
    """Tell the other services of schemas that a migration has written. May be repeated; returns how many there were."""
    rows = await repository.lock_unpublished_schemas(session)
    for row in rows:
        await publish_schema(session, schema_document(row))
        row.published = True
    return len(rows)
