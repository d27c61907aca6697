"""A cache in memory, with a clock that is moved by hand."""

from datetime import timedelta

import msgspec
import pytest
import structlog

from tenantry.cache import MemoryStore, TenantCache


class Profile(msgspec.Struct):
    name: str
    age: int = 0


class Seconds:
    def __init__(self):
        self.now = 1_000.0

    def __call__(self):
        return self.now


@pytest.fixture(autouse=True)
def logs():
    with structlog.testing.capture_logs() as logs:
        yield logs


@pytest.fixture
def seconds():
    return Seconds()


@pytest.fixture
def store(seconds):
    return MemoryStore(monotonic=seconds)


@pytest.fixture
def cache(store):
    return TenantCache(store, uniform=lambda: 0.0)


@pytest.fixture
def profile_type():
    return Profile


@pytest.fixture
def profiles(cache):
    return cache.namespace("profiles", Profile, ttl=timedelta(seconds=60))
