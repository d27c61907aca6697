"""Configuration and flags as the tenant service's own processes know them: from the database, not from Kafka."""

from collections.abc import Sequence

import msgspec
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from tenant_service.config import repository
from tenant_service.config.models import ConfigLayerRow, ConfigSchemaRow
from tenant_service.config.places import Place
from tenant_service.config.repository import layer_document, schema_document
from tenant_service.config.secrets import published
from tenant_service.features.models import FlagRow
from tenant_service.features.repository import flag_document
from tenant_service.publication import ConfigChange, LayerWithdrawn
from tenantry.config import ConfigStore, Layer, LayerDocument, NamespaceSchema
from tenantry.features import FlagStore


class LocalConfig:
    """The stores, and how they follow the database. One event loop feeds and reads them."""

    def __init__(self) -> None:
        self.config = ConfigStore()
        self.flags = FlagStore(self.config)

    def apply(self, change: ConfigChange) -> None:
        """Take in what this process has just committed."""
        if isinstance(change, LayerDocument):
            self.config.upsert(change)
        elif isinstance(change, LayerWithdrawn):
            self.config.remove(change.layer, change.name, change.namespace)
        elif isinstance(change, NamespaceSchema):
            self.config.upsert_schema(change)
        else:
            self.flags.upsert(change)

    async def load(self, session: AsyncSession) -> None:
        """Read everything; what is not there any more is forgotten."""
        seen = set()
        async for row in repository.stream_layers(session):
            place = Place(Layer(row.layer), row.name, row.namespace)
            self._take(place, row)
            seen.add((place.layer, place.name, place.namespace))
        for gone in self.config.places() - seen:
            self.config.remove(*gone)
        for schema in await session.scalars(select(ConfigSchemaRow)):
            self.config.upsert_schema(schema_document(schema))
        for flag in await session.scalars(select(FlagRow)):
            self.flags.upsert(flag_document(flag))

    async def reload(self, session: AsyncSession, keys: Sequence[str]) -> None:
        """Read again what notifications have named, by `key_of_config`."""
        for key in keys:
            kind, _, rest = key.partition("/")
            name, _, namespace = rest.rpartition("/")
            if kind == "flag":
                flag = await session.get(FlagRow, namespace, populate_existing=True)
                if flag is not None:
                    self.flags.upsert(flag_document(flag))
            elif kind == "schema":
                schema = await session.get(ConfigSchemaRow, namespace, populate_existing=True)
                if schema is not None:
                    self.config.upsert_schema(schema_document(schema))
            else:
                self._take(
                    Place(Layer(kind), name, namespace), await session.get(ConfigLayerRow, (namespace, kind, name))
                )

    def _take(self, place: Place, row: ConfigLayerRow | None) -> None:
        if row is None or row.document is None:
            self.config.remove(place.layer, place.name, place.namespace)
        else:
            document = layer_document(row)
            self.config.upsert(msgspec.structs.replace(document, document=published(document.document)))
