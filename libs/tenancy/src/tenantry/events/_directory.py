"""The local state that every service has from the state topics: tenants, tiers, signing keys, credentials."""

import asyncio
from collections.abc import Callable
from typing import Any, Final
from uuid import UUID

import msgspec
from aiokafka import ConsumerRecord

from tenantry import LocalDirectory, Tenant, Tier
from tenantry.events._envelope import InvalidRecord, version_of
from tenantry.events._settings import KafkaSettings
from tenantry.events._state import StateReader
from tenantry.identity import Credential, CredentialStore, KeySet

TENANT_STATE: Final = "tenant.state.v1"
PLATFORM_STATE: Final = "platform.state.v1"
TENANT_CREDENTIALS: Final = "tenant.credentials.v1"

_TIER: Final = b"tier/"
_JWKS: Final = b"jwks"

_decode_tenant: Final = msgspec.json.Decoder(Tenant).decode
_decode_tier: Final = msgspec.json.Decoder(Tier).decode
_decode_jwks: Final = msgspec.json.Decoder(dict[str, Any]).decode
_decode_credential: Final = msgspec.json.Decoder(Credential).decode


class KafkaDirectory:
    """Tenants, tiers, keys and credentials in memory, following Kafka; look-ups never wait for a server."""

    def __init__(self, kafka: KafkaSettings) -> None:
        self.directory = LocalDirectory()
        self.keys = KeySet()
        self.credentials = CredentialStore()
        # A relay that died before it could delete publishes again: a revoked credential must not come back for that.
        self._versions: dict[tuple[str, bytes], int] = {}
        self._waiters: set[tuple[Callable[[], bool], asyncio.Future[None]]] = set()
        self._apply_by_topic = {
            kafka.topic(TENANT_STATE): self._apply_tenant,
            kafka.topic(PLATFORM_STATE): self._apply_platform,
            kafka.topic(TENANT_CREDENTIALS): self._apply_credential,
        }
        self._reader = StateReader(
            kafka, [TENANT_STATE, PLATFORM_STATE, TENANT_CREDENTIALS], self._apply, on_batch=self._wake
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
        place = (record.topic, record.key)
        if version is not None and version <= self._versions.get(place, -1):
            return
        try:
            self._apply_by_topic[record.topic](record.key, record.value)
        except (msgspec.MsgspecError, ValueError) as error:
            raise InvalidRecord(record, str(error)) from error
        if version is not None:
            self._versions[place] = version

    def _apply_tenant(self, key: bytes, value: bytes | None) -> None:
        if value is None:
            self.directory.remove(UUID(key.decode()))
            return
        tenant = _decode_tenant(value)
        if tenant.id != UUID(key.decode()):
            raise ValueError("the key names another tenant than the document")
        self.directory.upsert(tenant)

    def _apply_platform(self, key: bytes, value: bytes | None) -> None:
        # Other documents of this topic (flags, config schemas, regions) are for others.
        if value is None:
            return
        if key == _JWKS:
            self.keys.replace(_decode_jwks(value))
        elif key.startswith(_TIER):
            self.directory.upsert_tier(_decode_tier(value))

    def _apply_credential(self, key: bytes, value: bytes | None) -> None:
        if value is None:
            self.credentials.remove(key.decode())
        else:
            self.credentials.upsert(_decode_credential(value))
