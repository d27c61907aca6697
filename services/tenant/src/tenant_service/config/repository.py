"""SQL of configuration."""

from collections.abc import AsyncIterator, Sequence
from uuid import UUID

from sqlalchemy import ColumnElement, and_, func, literal, or_, select
from sqlalchemy.dialects.postgresql import ARRAY, TEXT
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncSession

from tenant_service.config.models import ConfigLayerRow, ConfigSchemaRow, ConfigSchemaVersionRow, ConfigVersionRow
from tenant_service.config.places import Place
from tenant_service.models import TenantRow
from tenantry import NotFound
from tenantry.config import Layer, LayerDocument, NamespaceSchema, split


class UnknownNamespace(NotFound):
    """Nobody has said what the namespace may hold."""

    def __init__(self, namespace: str) -> None:
        super().__init__(f"There is no namespace {namespace!r}; its schema comes first")


def layer_document(row: ConfigLayerRow | ConfigVersionRow) -> LayerDocument:
    """The row as a document, secrets as they are stored. A layer that says nothing has an empty one."""
    return LayerDocument(
        layer=Layer(row.layer),
        name=row.name,
        namespace=row.namespace,
        version=row.version,
        document=row.document or {},
    )


def schema_document(row: ConfigSchemaRow | ConfigSchemaVersionRow) -> NamespaceSchema:
    """The schema as the other services see it."""
    return NamespaceSchema(
        namespace=row.namespace,
        version=row.version,
        schema=row.schema,
        writable_by=row.writable_by,
        secret_readers=tuple(row.secret_readers),
    )


async def find_schema(
    session: AsyncSession, namespace: str, *, lock: bool = False, share: bool = False
) -> ConfigSchemaRow:
    """The present schema. Raises `UnknownNamespace`.

    Whoever writes a tenant's layer shares the lock; whoever changes what many tenants stand on holds it alone, so that
    a document is checked against the schema and the wider layers that hold when it is committed.
    """
    statement = select(ConfigSchemaRow).where(ConfigSchemaRow.namespace == namespace)
    if lock or share:
        statement = statement.with_for_update(read=share)
    row = (await session.scalars(statement.execution_options(populate_existing=True))).one_or_none()
    if row is None:
        raise UnknownNamespace(namespace)
    return row


async def list_schemas(session: AsyncSession, *, after: str | None, limit: int) -> Sequence[ConfigSchemaRow]:
    """At most `limit` namespaces by name, after `after`."""
    statement = select(ConfigSchemaRow).order_by(ConfigSchemaRow.namespace).limit(limit)
    if after is not None:
        statement = statement.where(ConfigSchemaRow.namespace > after)
    return (await session.scalars(statement)).all()


async def list_schema_versions(
    session: AsyncSession, namespace: str, *, before: int | None, limit: int
) -> Sequence[ConfigSchemaVersionRow]:
    """At most `limit` versions of a schema, the newest first."""
    statement = select(ConfigSchemaVersionRow).where(ConfigSchemaVersionRow.namespace == namespace)
    if before is not None:
        statement = statement.where(ConfigSchemaVersionRow.version < before)
    return (await session.scalars(statement.order_by(ConfigSchemaVersionRow.version.desc()).limit(limit))).all()


async def lock_unpublished_schemas(session: AsyncSession) -> Sequence[ConfigSchemaRow]:
    """The schemas that the other services have not been told of, locked."""
    unpublished = select(ConfigSchemaRow).where(ConfigSchemaRow.published.is_(False))
    return (await session.scalars(unpublished.order_by(ConfigSchemaRow.namespace).with_for_update())).all()


async def uses_of_pointer(session: AsyncSession, namespace: str, pointers: Sequence[str]) -> str | None:
    """One of the pointers at which some version of some layer holds a value, None where none does."""
    for pointer in pointers:
        path = literal(split(pointer), ARRAY(TEXT))
        held = ConfigVersionRow.document.op("#>")(path)
        used = select(ConfigVersionRow.version).where(
            ConfigVersionRow.namespace == namespace, func.jsonb_typeof(held) != "null"
        )
        if await session.scalar(used.limit(1)) is not None:
            return pointer
    return None


async def find_layer(session: AsyncSession, place: Place) -> ConfigLayerRow | None:
    """The row of a layer, None where it never said anything."""
    return await session.get(ConfigLayerRow, (place.namespace, place.layer.value, place.name))


async def lock_layer(session: AsyncSession, place: Place, *, new: ConfigLayerRow) -> ConfigLayerRow:
    """The row of a layer, locked; it is inserted as `new` where there is none."""
    # Insert first: whoever comes second waits for the first one's commit and then finds a row to lock.
    values = {column.key: getattr(new, column.key) for column in ConfigLayerRow.__table__.columns}
    await session.execute(upsert(ConfigLayerRow).values(values).on_conflict_do_nothing())
    locked = select(ConfigLayerRow).where(_is_at(place)).with_for_update()
    return (await session.scalars(locked.execution_options(populate_existing=True))).one()


async def layers_for(
    session: AsyncSession, namespace: str, *, region: str | None, tier: str, tenant_id: UUID | None
) -> list[LayerDocument]:
    """What is said for a tenant in this place, the widest layer first: one statement."""
    names = {Layer.PLATFORM: "", Layer.TIER: tier}
    if region is not None:
        names[Layer.REGION] = region
    if tenant_id is not None:
        names[Layer.TENANT] = str(tenant_id)
    wanted = or_(*(and_(ConfigLayerRow.layer == layer, ConfigLayerRow.name == name) for layer, name in names.items()))
    statement = select(ConfigLayerRow).where(
        ConfigLayerRow.namespace == namespace, ConfigLayerRow.document.is_not(None), wanted
    )
    found = {row.layer: layer_document(row) for row in await session.scalars(statement)}
    return [found[layer] for layer in Layer if layer in found]


async def stream_layers(session: AsyncSession) -> AsyncIterator[ConfigLayerRow]:
    """Every layer that says something, of every namespace."""
    statement = select(ConfigLayerRow).where(ConfigLayerRow.document.is_not(None))
    async for row in await session.stream_scalars(statement.execution_options(yield_per=1000)):
        yield row


async def upper_layers(session: AsyncSession, namespace: str) -> Sequence[ConfigLayerRow]:
    """What platform, regions and tiers say in a namespace."""
    statement = select(ConfigLayerRow).where(
        ConfigLayerRow.namespace == namespace,
        ConfigLayerRow.layer != Layer.TENANT,
        ConfigLayerRow.document.is_not(None),
    )
    return (await session.scalars(statement)).all()


async def tenants_with_layer(
    session: AsyncSession, place: Place | None, namespace: str, *, after: UUID | None, limit: int
) -> Sequence[tuple[ConfigLayerRow, str | None, str]]:
    """Tenants that say something in the namespace, with region and tier; those below `place` where one is given."""
    statement = (
        select(ConfigLayerRow, TenantRow.region, TenantRow.tier)
        .join(TenantRow, TenantRow.id == ConfigLayerRow.tenant_id)
        .where(ConfigLayerRow.namespace == namespace, ConfigLayerRow.document.is_not(None))
        .order_by(ConfigLayerRow.tenant_id)
        .limit(limit)
    )
    if place is not None and place.layer is Layer.REGION:
        statement = statement.where(TenantRow.region == place.name)
    elif place is not None and place.layer is Layer.TIER:
        statement = statement.where(TenantRow.tier == place.name)
    if after is not None:
        statement = statement.where(ConfigLayerRow.tenant_id > after)
    return [(row, region, tier) for row, region, tier in await session.execute(statement)]


async def find_version(session: AsyncSession, place: Place, version: int) -> ConfigVersionRow:
    """A version of a layer. Raises `NotFound`."""
    row = await session.get(ConfigVersionRow, (place.namespace, place.layer.value, place.name, version))
    if row is None:
        raise NotFound(f"The layer has no version {version}")
    return row


async def list_versions(
    session: AsyncSession, place: Place, *, before: int | None, limit: int
) -> Sequence[ConfigVersionRow]:
    """At most `limit` versions of a layer, the newest first."""
    statement = select(ConfigVersionRow).where(
        ConfigVersionRow.namespace == place.namespace,
        ConfigVersionRow.layer == place.layer,
        ConfigVersionRow.name == place.name,
    )
    if before is not None:
        statement = statement.where(ConfigVersionRow.version < before)
    return (await session.scalars(statement.order_by(ConfigVersionRow.version.desc()).limit(limit))).all()


def _is_at(place: Place) -> ColumnElement[bool]:
    return and_(
        ConfigLayerRow.namespace == place.namespace,
        ConfigLayerRow.layer == place.layer,
        ConfigLayerRow.name == place.name,
    )
