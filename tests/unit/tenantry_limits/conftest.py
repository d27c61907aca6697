"""A limiter with tiers of its own and a clock that is moved by hand."""

import pytest
import structlog

from tenantry import LocalDirectory, Tier
from tenantry.config import ConfigStore
from tenantry.limits import FairGate, Limiter

SECOND = 1_000_000_000


class Hand:
    def __init__(self):
        self.now = 77

    def __call__(self):
        return self.now

    def advance(self, seconds):
        self.now += round(seconds * SECOND)


@pytest.fixture(autouse=True)
def logs():
    with structlog.testing.capture_logs() as logs:
        yield logs


@pytest.fixture
def hand():
    return Hand()


@pytest.fixture
def directory(tenant_a, tenant_b):
    return LocalDirectory.of([tenant_a, tenant_b])


@pytest.fixture
def gate():
    return FairGate(100, max_waiting=10, wait=5.0)


@pytest.fixture
def config():
    return ConfigStore()


@pytest.fixture
def limiter(directory, gate, hand, config):
    return Limiter("things", directory, gate=gate, config=config, monotonic_ns=hand)


@pytest.fixture
def publish(directory):
    """The next version of the tier of both tenants."""
    versions = iter(range(1, 100))
    return lambda **limits: directory.upsert_tier(Tier(name="standard", version=next(versions), limits=limits))
