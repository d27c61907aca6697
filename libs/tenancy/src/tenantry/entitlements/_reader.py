"""Feeds the stores of balances and plans from `usage.balances.v1` and `billing.state.v1`."""

import time
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Final
from uuid import UUID

import msgspec
from prometheus_client import Gauge

from tenantry.entitlements._balance import WATERMARK_KEY, Balance
from tenantry.entitlements._plans import BillingState, PlanStore
from tenantry.entitlements._store import BalanceStore
from tenantry.events import InvalidRecord, KafkaSettings, StateReader, version_of

if TYPE_CHECKING:
    from aiokafka import ConsumerRecord

USAGE_BALANCES: Final = "usage.balances.v1"
BILLING_STATE: Final = "billing.state.v1"

AGE = Gauge("tenantry_balances_age_seconds", "How long ago everything was received that the balances hold")

_Moment = Annotated[datetime, msgspec.Meta(tz=True)]

_decode: Final = msgspec.json.Decoder(Balance).decode
_decode_state: Final = msgspec.json.Decoder(BillingState).decode


class BalanceReader:
    """Follows the topics; the stores are complete once `start` returns."""

    def __init__(self, kafka: KafkaSettings, store: BalanceStore, plans: PlanStore | None = None) -> None:
        """Plans are followed where there is a store for them."""
        self._store = store
        self._plans = plans
        self._state_topic = kafka.topic(BILLING_STATE)
        topics = [USAGE_BALANCES] if plans is None else [USAGE_BALANCES, BILLING_STATE]
        self._reader = StateReader(kafka, topics, self._apply)

    @property
    def lag_seconds(self) -> float:
        """How old what is known may be; infinite before all was read once."""
        return self._reader.lag_seconds

    async def start(self) -> None:
        """Returns when the topics are read to their end; waits for Kafka for ever."""
        AGE.set_function(lambda: self._store.age_seconds(time.time()))
        await self._reader.start()

    async def stop(self) -> None:
        await self._reader.stop()

    def _apply(self, record: "ConsumerRecord[bytes, bytes]") -> None:
        version = version_of(record)
        if record.key is None or version is None:
            raise InvalidRecord(record, "no key, or no version")
        try:
            if record.topic == self._state_topic:
                self._apply_plans(record.key.decode(), record.value, version)
            else:
                self._apply_balance(record.key.decode(), record.value, version)
        except (msgspec.MsgspecError, ValueError) as error:
            raise InvalidRecord(record, str(error)) from error

    def _apply_balance(self, key: str, value: bytes | None, version: int) -> None:
        tenant_id, _, feature = key.partition("/")
        balance = None if value is None else _decode(value)
        if balance is not None and (balance.tenant_id, balance.feature) != (tenant_id, feature):
            raise ValueError("the key names another tenant or feature than the document")
        if key == WATERMARK_KEY:
            # Its versions need not be asked: one process writes it, and an earlier one is fenced.
            self._store.watermark = None if balance is None else msgspec.convert(balance.config, _Moment)
            return
        self._store.apply(UUID(tenant_id), feature, balance, version)

    def _apply_plans(self, key: str, value: bytes | None, version: int) -> None:
        state = None if value is None else _decode_state(value)
        if state is not None and state.tenant_id != key:
            raise ValueError("the key names another tenant than the document")
        if self._plans is not None:
            self._plans.apply(UUID(key), state, version)
