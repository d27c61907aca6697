"""Consumers killed with SIGKILL while they work: every record has its effect exactly once."""

import asyncio
import random
import sys
from functools import partial
from pathlib import Path

import pytest
from sqlalchemy import text

from tenantry.testing import eventually

TOPIC = "usage.events.v1"
PROGRAM = Path(__file__).parent / "killed_consumer.py"
PARTITIONS = 4
RECORDS = 2_000
KILLS = 6


@pytest.mark.chaos
async def test_killed_again_and_again_while_records_arrive(broker, kafka, engine, database):
    await broker.create(TOPIC, partitions=PARTITIONS)
    url = database.url.replace("postgresql://", "postgresql+asyncpg://")
    chance = random.Random(7)  # noqa: S311 - a repeatable choice of victims
    written = 0

    async def start() -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            sys.executable,
            str(PROGRAM),
            kafka.kafka_bootstrap,
            kafka.topic_prefix,
            url,
            TOPIC,
            stdout=asyncio.subprocess.DEVNULL,
        )

    async def stored() -> int:
        async with engine.connect() as connection:
            return await connection.scalar(text("SELECT count(*) FROM effect"))

    members = [await start(), await start()]
    try:
        for round_ in range(KILLS):
            before = await stored()
            share = RECORDS // KILLS if round_ < KILLS - 1 else RECORDS - written
            for partition in range(PARTITIONS):
                first, last = written + share * partition // PARTITIONS, written + share * (partition + 1) // PARTITIONS
                await broker.write(TOPIC, [b"%05d" % n for n in range(first, last)], partition=partition)
            written += share
            # In the middle of its work: some of the records of this round are stored and most are not.
            await eventually(partial(_more_than, stored, before), within=60, interval=0.005)
            victim = members.pop(chance.randrange(2))
            victim.kill()
            await victim.wait()
            members.append(await start())
        await eventually(lambda: _more_than(stored, RECORDS - 1), within=60)
    finally:
        for member in members:
            member.kill()
            await member.wait()
    async with engine.connect() as connection:
        values = list(await connection.scalars(text("SELECT value FROM effect ORDER BY value")))
    assert values == [f"{n:05d}" for n in range(RECORDS)]


async def _more_than(read, count: int) -> bool:
    return await read() > count
