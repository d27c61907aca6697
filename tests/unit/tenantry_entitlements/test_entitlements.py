"""What passes and what does not, by balances that are known here and what was let pass since."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from types import SimpleNamespace
from typing import Annotated, Any

import httpx
import msgspec
import pytest
from fastapi import Depends, FastAPI, Query
from hypothesis import given
from hypothesis import strategies as st
from local_state import GivenState

from tenantry import (
    NoTenant,
    QuotaExceeded,
    StartupRefused,
    Tenancy,
    TenancySettings,
    Unavailable,
    tenant_scope,
)
from tenantry.entitlements import (
    WATERMARK_KEY,
    Balance,
    BalanceReader,
    BalanceStore,
    Entitlements,
    Taken,
    requires,
)
from tenantry.events import InvalidRecord, KafkaSettings
from tenantry.features import FeatureOff
from tenantry.http import install_problem_handlers
from tenantry.testing import TenantFactory

MAY = datetime(2026, 5, 1, tzinfo=UTC)
JUNE = datetime(2026, 6, 1, tzinfo=UTC)
TENANT = TenantFactory()()


class World:
    """One process, its clock, and the versions of balances that reach it."""

    def __init__(self, **options: object) -> None:
        self.now, self.lag, self.version = 1000.0, 0.0, 0
        self.store = BalanceStore()
        self.entitlements = Entitlements(
            self.store,
            lag_seconds=lambda: self.lag,
            monotonic=lambda: self.now,
            epoch=lambda: self.at().timestamp(),
            **{"max_staleness_seconds": 60.0, "hold_seconds": 10.0, **options},  # type: ignore[arg-type]
        )

    def told(self, balance: str | None = "3", *, feature: str = "calls", **changes: object) -> None:
        self.version += 1
        given = {"hard": True, "has_access": True, "period_start": MAY, "resets_at": JUNE, "limit": Decimal(10)}
        amount = None if balance is None else Decimal(balance)
        record = Balance(tenant_id=str(TENANT.id), feature=feature, balance=amount, **{**given, **changes})  # type: ignore[arg-type]
        assert self.store.apply(TENANT.id, feature, record, self.version)

    def at(self) -> datetime:
        """What the clocks on the walls show."""
        return MAY + timedelta(seconds=self.now)

    def counted(self) -> None:
        """Everything that was received so far is in the balances, and they say so."""
        self.store.watermark = self.at()

    def check(self, amount: Decimal | int = 1, feature: str = "calls"):
        return self.entitlements.check(feature, amount, tenant=TENANT)

    def passes(self, tries: int, feature: str = "calls") -> int:
        passed = 0
        for _ in range(tries):
            try:
                self.check(feature=feature)
            except QuotaExceeded:
                continue
            passed += 1
        return passed


@pytest.fixture
def world():
    return World()


def test_no_more_passes_than_is_left_between_two_balances(world):
    world.told("3")
    assert world.passes(10) == 3
    with pytest.raises(QuotaExceeded) as refused:
        world.check()
    assert refused.value.members == {
        "feature": "calls", "limit": Decimal(10), "balance": Decimal(0), "resets_at": JUNE
    }  # fmt: skip


def test_what_was_let_pass_counts_until_the_balance_can_know_it(world):
    world.told("3")
    assert world.passes(2) == 2
    world.now += 5
    # Somebody else's use: ours is not in it yet, for all that is known.
    world.told("2.5")
    assert world.passes(10) == 0
    world.now += 6.001
    assert world.passes(10) == 2


def test_what_was_taken_at_the_turn_of_a_period_is_held_in_the_new_one(world):
    # Some of it was used after the turn, on the old balance, and is in neither.
    world.told("3")
    assert world.passes(3) == 3
    world.told("10", period_start=JUNE)
    assert world.passes(20) == 7
    world.now += 11.001
    assert world.passes(20) == 10


def test_nothing_that_was_taken_is_forgotten_while_nothing_is_counted(world):
    world.told("50")
    world.counted()
    assert world.passes(40) == 40
    for _ in range(4):
        world.now += 12  # longer than the hold, while the topic is read to its end and says nothing
        assert world.passes(99) == (10 if world.now == 1012 else 0)
    world.counted()
    world.told("0")
    world.now += 12
    world.counted()
    assert world.passes(99) == 0
    world.told("5")
    assert world.passes(99) == 5


def test_a_hard_quota_is_unknown_while_nothing_is_counted_and_nothing_else_is(world):
    world.told("50")
    world.told("0", feature="soft", hard=False)
    world.told(None, feature="sso", limit=None)
    world.counted()
    world.now += 60
    assert world.passes(1) == 1
    world.now += 60
    with pytest.raises(Unavailable):
        world.check()
    assert (world.passes(1, "soft"), world.passes(1, "sso")) == (1, 1)
    world.entitlements.require("sso", tenant=TENANT)
    world.counted()
    assert world.passes(1) == 1
    lax = World(stale="allow")
    lax.told("3")
    lax.counted()
    assert lax.passes(2) == 2
    lax.now += 3600
    assert lax.passes(9) == 1


def test_hours_without_counting_keep_no_more_than_a_few_seconds_apart():
    taken = Taken(10.0)
    for second in range(10_000):
        taken.add(Decimal(1), float(second))
    assert taken.total(0.0) == 10_000
    assert len(taken._seconds) == 100
    assert taken.total(30.0) == 10_000 - 20
    assert taken.total(10_011.0) == 0


def reading(store: BalanceStore) -> BalanceReader:
    return BalanceReader(KafkaSettings(kafka_bootstrap="kafka.test:9092"), store)


def record(value: object, *, key: str = WATERMARK_KEY, version: int = 1) -> Any:
    """A consumed record, as far as it is looked at."""
    body = None if value is None else msgspec.json.encode(value)
    headers = [("ce_sequence", str(version).encode())]
    return SimpleNamespace(
        topic="usage.balances.v1", partition=0, offset=0, key=key.encode(), value=body, headers=headers
    )


def test_the_watermark_is_a_balance_of_nobody_to_whom_it_means_nothing():
    tenant, _, feature = WATERMARK_KEY.partition("/")
    told = {"tenant_id": tenant, "feature": feature, "has_access": False, "config": "2026-05-01T00:00:00.5Z"}
    assert msgspec.json.decode(msgspec.json.encode(told), type=Balance).balance is None
    store = BalanceStore()
    apply = reading(store)._apply
    apply(record(told))
    assert (store.watermark, len(store)) == (MAY + timedelta(seconds=0.5), 0)
    assert store.age_seconds((MAY + timedelta(seconds=9)).timestamp()) == 8.5
    for wrong in ("2026-05-01T00:00:00", "soon", 5, None):
        with pytest.raises(InvalidRecord):
            apply(record(told | {"config": wrong}))
    apply(record(None, version=2))
    assert (store.watermark, store.age_seconds(0.0)) == (None, 0.0)


def test_amounts(world):
    world.told("3")
    assert world.check(Decimal("2.5")).balance == Decimal("0.5")
    with pytest.raises(QuotaExceeded):
        world.check()
    assert world.check(Decimal("0.5")).balance == 0
    for amount in (0, -1, Decimal("NaN"), Decimal("Infinity")):
        with pytest.raises(ValueError, match="more than zero"):
            world.check(amount)


def test_a_soft_quota_and_a_feature_are_not_taken_from(world):
    world.told("0", hard=False)
    assert world.passes(5) == 5
    world.told(None, feature="sso", limit=None)
    assert world.passes(5, "sso") == 5
    world.told(None, feature="sso", limit=None, has_access=False)
    assert world.passes(5, "sso") == 0
    with pytest.raises(FeatureOff):
        world.entitlements.require("sso", tenant=TENANT)


def test_the_config_of_a_static_feature(world):
    world.told(None, feature="seats", config={"n": 5})
    assert world.entitlements.require("seats", tenant=TENANT) == {"n": 5}


def test_unsure_is_refused_unless_the_settings_say_else(world):
    for unsure in (world.check, lambda: world.check(feature="other")):
        with pytest.raises(QuotaExceeded):
            unsure()
    with pytest.raises(FeatureOff):
        world.entitlements.require("other", tenant=TENANT)
    world.told("3")
    world.lag = 61
    with pytest.raises(Unavailable):
        world.check()
    lax = World(unknown="allow", stale="allow")
    lax.lag = float("inf")
    assert lax.passes(3) == 3
    lax.told("2")
    assert lax.passes(3) == 2


def test_an_older_version_says_nothing_and_an_end_is_an_end(world):
    world.told("3")
    stale = world.store.get(TENANT.id, "calls")
    world.told("0")
    assert not world.store.apply(TENANT.id, "calls", stale, 1)
    assert world.passes(1) == 0
    world.told("5")
    assert world.store.apply(TENANT.id, "calls", None, world.version + 1)
    assert world.passes(1) == 0


def test_without_a_tenant_nothing_is_checked(world):
    with pytest.raises(NoTenant):
        world.entitlements.check("calls")
    world.told()
    with tenant_scope(TENANT):
        assert world.entitlements.check("calls").balance == 2


@given(st.lists(st.tuples(st.integers(0, 3_000), st.integers(1, 5)), max_size=40), st.integers(0, 40_000))
def test_taken_counts_for_the_hold_and_a_second_at_most(steps, last):
    taken, now, added = Taken(10.0), 0, []
    for wait, amount in steps:
        now += wait
        taken.add(Decimal(amount), now / 1000)
        added.append((now, amount))
    end = now + last
    seen = taken.total(end / 1000)
    certain = sum(amount for at, amount in added if end - at < 10_000)
    possible = sum(amount for at, amount in added if end - at <= 11_000)
    assert certain <= seen <= possible


class Installed(Tenancy):
    """A tenancy that runs, as far as routes ask for what a tenant may use."""

    def __init__(self, entitlements: Entitlements) -> None:
        super().__init__("app", TenancySettings(issuer="http://tenant.test"), source=GivenState())
        self._entitlements = entitlements


def with_dependency(app: FastAPI, tenancy: Tenancy) -> None:
    @app.post("/documents", dependencies=[Depends(requires("search", quota="calls", amount=2))])
    async def create(number: Annotated[int, Query()] = 0) -> int:
        return number


def with_decorator(app: FastAPI, tenancy: Tenancy) -> None:
    @app.post("/documents")
    @tenancy.requires("search", quota="calls", amount=2)
    async def create(number: Annotated[int, Query()] = 0) -> int:
        return number


@pytest.mark.parametrize("install", [with_dependency, with_decorator])
async def test_a_route_demands_a_feature_and_takes_of_a_quota(world, install):
    app = FastAPI()
    app.state.tenancy = Installed(world.entitlements)
    install_problem_handlers(app)
    install(app, app.state.tenancy)
    world.told("3")
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://app.test") as client:
        with tenant_scope(TENANT):
            missing = await client.post("/documents")
            assert (missing.status_code, missing.json()["type"]) == (403, "entitlement-missing")
            world.told(None, feature="search")
            assert (await client.post("/documents?number=7")).json() == 7
            used_up = await client.post("/documents")
    assert (used_up.status_code, used_up.json()["type"]) == (402, "quota-exceeded")
    said = {name: used_up.json()[name] for name in ("feature", "limit", "balance", "resets_at")}
    assert said == {"feature": "calls", "limit": "10", "balance": "1", "resets_at": "2026-06-01T00:00:00Z"}


async def test_a_request_that_is_not_valid_takes_nothing_where_the_decorator_asks(world):
    app = FastAPI()
    app.state.tenancy = Installed(world.entitlements)
    install_problem_handlers(app)
    with_decorator(app, app.state.tenancy)
    world.told("3")
    world.told(None, feature="search")
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://app.test") as client:
        with tenant_scope(TENANT):
            assert (await client.post("/documents?number=x")).status_code == 422
    assert world.passes(5) == 3


def test_the_decorator_is_for_coroutine_functions(world):
    with pytest.raises(TypeError, match="no coroutine function"):
        Installed(world.entitlements).requires(quota="calls")(lambda: None)  # type: ignore[arg-type,return-value] # on purpose


def test_a_route_demands_something():
    with pytest.raises(ValueError, match="name a feature"):
        requires()


def test_a_tenancy_without_the_setting_says_so():
    tenancy = Tenancy("app", TenancySettings(issuer="http://tenant.test"), source=GivenState())
    with pytest.raises(StartupRefused, match="TENANTRY_ENTITLEMENTS"):
        _ = tenancy.entitlements
