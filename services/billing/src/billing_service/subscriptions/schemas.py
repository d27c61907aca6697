"""Subscriptions on the wire."""

from datetime import datetime
from typing import Annotated
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from billing_service.domain.numbers import Amount
from billing_service.domain.periods import Anchor
from billing_service.domain.plans import Code, Currency
from billing_service.domain.texts import Instant
from billing_service.subscriptions.models import Subscription


class SubscriptionIn(BaseModel):
    """`plan` is a code, or a code and a version as in `pro@3`; without a version it is the latest."""

    model_config = ConfigDict(extra="forbid")

    tenant_id: Annotated[str, Field(min_length=1, max_length=128, description="the tenant's id or external id")]
    plan: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}(@[1-9][0-9]{0,8})?$")]
    account: Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[!-~]+$")] | None = None
    currency: Currency | None = None
    quantities: dict[Code, Amount] = {}
    time_zone: Annotated[str, Field(max_length=64)] = "UTC"
    anchor: Anchor = Anchor.ANNIVERSARY
    start_at: Instant | None = None
    ends_at: Instant | None = None

    @property
    def plan_code(self) -> str:
        return self.plan.partition("@")[0]

    @property
    def plan_version(self) -> int | None:
        version = self.plan.partition("@")[2]
        return int(version) if version else None


class CancelIn(BaseModel):
    """The subscription ends at this instant; its local day is still billed."""

    model_config = ConfigDict(extra="forbid")

    at: Instant


class SubscriptionOut(BaseModel):
    id: UUID
    tenant_id: UUID
    account: str
    plan: str
    plan_version: int
    currency: str
    quantities: dict[str, Amount]
    time_zone: str
    anchor: Anchor
    start_at: datetime
    ends_at: datetime | None
    version: int
    created_at: datetime

    @classmethod
    def of(cls, subscription: Subscription) -> "SubscriptionOut":
        return cls(
            id=subscription.id,
            tenant_id=subscription.tenant_id,
            account=subscription.account,
            plan=subscription.plan_code,
            plan_version=subscription.plan_version,
            currency=subscription.currency,
            quantities=dict(subscription.quantities),
            time_zone=subscription.time_zone,
            anchor=subscription.anchor,
            start_at=subscription.start_at,
            ends_at=subscription.ends_at,
            version=subscription.version,
            created_at=subscription.created_at,
        )
