"""Who is to have a thread waits for a connection first, and gives its place back however it ends."""

import asyncio

import pytest

from tenantry.database import ConnectionsExhausted
from tenantry.database._thread_places import ThreadPlaces

POOL = [("pool", 2)]


@pytest.fixture
def places():
    return ThreadPlaces(0.05)


async def test_as_many_enter_as_the_pool_has_connections(places):
    async with places.enter(POOL), places.enter(POOL):
        with pytest.raises(ConnectionsExhausted):
            async with places.enter(POOL):
                pass
        async with places.enter([("another", 1)]):
            pass


@pytest.mark.parametrize("end", [None, ValueError, asyncio.CancelledError])
async def test_a_place_is_given_back_however_its_block_ends(places, end):
    async with places.enter(POOL):
        for _ in range(5):
            try:
                async with places.enter(POOL):
                    if end is not None:
                        raise end
            except (ValueError, asyncio.CancelledError):
                pass


async def test_who_waits_is_let_in_by_who_leaves(places):
    entered = asyncio.Event()

    async def enter():
        async with places.enter([("pool", 1)]):
            entered.set()

    async with places.enter([("pool", 1)]):
        waiting = asyncio.create_task(enter())
        await asyncio.sleep(0)
        assert not entered.is_set()
    await waiting
    assert entered.is_set()


async def test_who_gets_no_place_in_the_second_pool_keeps_none_in_the_first(places):
    async with places.enter([("second", 1)]):
        with pytest.raises(ConnectionsExhausted):
            async with places.enter([("first", 1), ("second", 1)]):
                pass
        async with places.enter([("first", 1)]):
            pass
