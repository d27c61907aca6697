"""Feeds a store of balances from `usage.balances.v1`."""

from typing import TYPE_CHECKING, Final
from uuid import UUID

import msgspec

from tenantry.entitlements._balance import Balance
from tenantry.entitlements._store import BalanceStore
from tenantry.events import InvalidRecord, KafkaSettings, StateReader, version_of

if TYPE_CHECKING:
    from aiokafka import ConsumerRecord

USAGE_BALANCES: Final = "usage.balances.v1"

_decode: Final = msgspec.json.Decoder(Balance).decode


class BalanceReader:
    """Follows the topic; the store is complete once `start` returns."""

    def __init__(self, kafka: KafkaSettings, store: BalanceStore) -> None:
        self._store = store
        self._reader = StateReader(kafka, [USAGE_BALANCES], self._apply)

    @property
    def lag_seconds(self) -> float:
        """How old the balances may be; infinite before all were read once."""
        return self._reader.lag_seconds

    async def start(self) -> None:
        """Returns when the topic is read to its end; waits for Kafka for ever."""
        await self._reader.start()

    async def stop(self) -> None:
        await self._reader.stop()

    def _apply(self, record: "ConsumerRecord[bytes, bytes]") -> None:
        version = version_of(record)
        if record.key is None or version is None:
            raise InvalidRecord(record, "no key, or no version")
        try:
            tenant_id, _, feature = record.key.decode().partition("/")
            balance = None if record.value is None else _decode(record.value)
            if balance is not None and (balance.tenant_id, balance.feature) != (tenant_id, feature):
                raise InvalidRecord(record, "the key names another tenant or feature than the document")
            self._store.apply(UUID(tenant_id), feature, balance, version)
        except (msgspec.MsgspecError, ValueError) as error:
            raise InvalidRecord(record, str(error)) from error
