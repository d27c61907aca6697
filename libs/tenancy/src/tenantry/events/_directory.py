"""The local state that every service has from the state topics: tenants, tiers, keys, credentials, configuration."""

import asyncio
from collections import defaultdict
from collections.abc import Callable
from typing import Any, Final
from uuid import UUID

import msgspec
from aiokafka import ConsumerRecord

from tenantry import LocalDirectory, Tenant, Tier
from tenantry.config import ConfigStore, Layer, LayerDocument, NamespaceSchema, parse_platform_key
from tenantry.events._envelope import InvalidRecord, version_of
from tenantry.events._settings import KafkaSettings
from tenantry.events._state import StateReader
from tenantry.features import Flag, FlagStore
from tenantry.identity import REVOCATION_PREFIX, Credential, CredentialStore, KeySet, TokenRevocation

TENANT_STATE: Final = "tenant.state.v1"
PLATFORM_STATE: Final = "platform.state.v1"
TENANT_CREDENTIALS: Final = "tenant.credentials.v1"
TENANT_CONFIG: Final = "tenant.config.v1"

_TIER: Final = b"tier/"
_JWKS: Final = b"jwks"
_CONFIG: Final = b"config/"
_SCHEMA: Final = b"config-schema/"
_FLAG: Final = b"flag/"
_REVOCATION: Final = REVOCATION_PREFIX.encode()

_decode_tenant: Final = msgspec.json.Decoder(Tenant).decode
_decode_tier: Final = msgspec.json.Decoder(Tier).decode
_decode_jwks: Final = msgspec.json.Decoder(dict[str, Any]).decode
_decode_credential: Final = msgspec.json.Decoder(Credential).decode
_decode_revocation: Final = msgspec.json.Decoder(TokenRevocation).decode
_decode_layer: Final = msgspec.json.Decoder(LayerDocument).decode
_decode_schema: Final = msgspec.json.Decoder(NamespaceSchema).decode
_decode_flag: Final = msgspec.json.Decoder(Flag).decode


class KafkaDirectory:
    """Tenants, tiers, credentials and configuration in memory, following Kafka; look-ups never wait for a server."""

    def __init__(self, kafka: KafkaSettings) -> None:
        self.directory = LocalDirectory()
        self.keys = KeySet()
        self.credentials = CredentialStore()
        self.config = ConfigStore()
        self.flags = FlagStore(self.config)
        # A relay that died before it could delete publishes again: a revoked credential must not come back for that.
        self._versions: dict[str, dict[bytes, int]] = defaultdict(dict)
        self._waiters: set[tuple[Callable[[], bool], asyncio.Future[None]]] = set()
        self._apply_by_topic = {
            kafka.topic(TENANT_STATE): self._apply_tenant,
            kafka.topic(PLATFORM_STATE): self._apply_platform,
            kafka.topic(TENANT_CREDENTIALS): self._apply_credential,
            kafka.topic(TENANT_CONFIG): self._apply_config,
        }
        self._reader = StateReader(
            kafka, [TENANT_STATE, PLATFORM_STATE, TENANT_CREDENTIALS, TENANT_CONFIG], self._apply, on_batch=self._wake
        )

    async def start(self) -> None:
        """Returns when the topics are read to their end; waits for Kafka for ever."""
        await self._reader.start()
        self.directory.ready = True

    async def stop(self) -> None:
        await self._reader.stop()

    @property
    def ready(self) -> bool:
        """Whether the directory has caught up once; latches."""
        return self._reader.caught_up

    @property
    def lag_seconds(self) -> float:
        return self._reader.lag_seconds

    async def wait_for(self, predicate: Callable[[], bool], timeout: float) -> None:  # noqa: ASYNC109
        """Returns when the predicate, asked after each batch of changes, is true; raises `TimeoutError`."""
        if predicate():
            return
        changed = asyncio.get_running_loop().create_future()
        waiter = (predicate, changed)
        self._waiters.add(waiter)
        try:
            async with asyncio.timeout(timeout):
                await changed
        finally:
            self._waiters.discard(waiter)

    def _wake(self) -> None:
        for predicate, changed in self._waiters:
            if not changed.done() and predicate():
                changed.set_result(None)

    def _apply(self, record: "ConsumerRecord[bytes, bytes]") -> None:
        if record.key is None:
            raise InvalidRecord(record, "no key")
        version = version_of(record)
        versions = self._versions[record.topic]
        if version is not None and version <= versions.get(record.key, -1):
            return
        try:
            self._apply_by_topic[record.topic](record.key, record.value)
        except (msgspec.MsgspecError, ValueError) as error:
            raise InvalidRecord(record, str(error)) from error
        if version is not None:
            versions[record.key] = version

    def _apply_tenant(self, key: bytes, value: bytes | None) -> None:
        if value is None:
            self.directory.remove(UUID(key.decode()))
            return
        tenant = _decode_tenant(value)
        if tenant.id != UUID(key.decode()):
            raise ValueError("the key names another tenant than the document")
        self.directory.upsert(tenant)

    def _apply_platform(self, key: bytes, value: bytes | None) -> None:
        # Other documents of this topic are for others.
        if key.startswith(_CONFIG):
            self._apply_layer(*parse_platform_key(key.decode()), value)
        elif key.startswith(_FLAG):
            self._apply_flag(key.removeprefix(_FLAG).decode(), value)
        elif value is None:
            return
        elif key == _JWKS:
            self.keys.replace(_decode_jwks(value))
        elif key.startswith(_TIER):
            self.directory.upsert_tier(_decode_tier(value))
        elif key.startswith(_SCHEMA):
            self.config.upsert_schema(_decode_schema(value))

    def _apply_config(self, key: bytes, value: bytes | None) -> None:
        tenant_id, _, namespace = key.decode().partition("/")
        self._apply_layer(Layer.TENANT, str(UUID(tenant_id)), namespace, value)

    def _apply_layer(self, layer: Layer, name: str, namespace: str, value: bytes | None) -> None:
        if value is None:
            self.config.remove(layer, name, namespace)
            return
        document = _decode_layer(value)
        if (document.layer, document.name, document.namespace) != (layer, name, namespace):
            raise ValueError("the key names another layer than the document")
        self.config.upsert(document)

    def _apply_flag(self, name: str, value: bytes | None) -> None:
        if value is None:
            self.flags.remove(name)
            return
        flag = _decode_flag(value)
        if flag.name != name:
            raise ValueError("the key names another flag than the document")
        self.flags.upsert(flag)

    def _apply_credential(self, key: bytes, value: bytes | None) -> None:
        if key.startswith(_REVOCATION):
            self._apply_revocation(key.removeprefix(_REVOCATION).decode(), value)
        elif value is None:
            self.credentials.remove(key.decode())
        else:
            self.credentials.upsert(_decode_credential(value))

    def _apply_revocation(self, revocation_id: str, value: bytes | None) -> None:
        if value is None:
            self.credentials.revocations.remove(revocation_id)
            return
        revocation = _decode_revocation(value)
        if revocation.id != revocation_id:
            raise ValueError("the key names another revocation than the document")
        self.credentials.revocations.upsert(revocation)
