"""Carries a schedule out."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence

from .installation import Installation, Process
from .schedule import Fault, Step


async def inflict(installation: Installation, steps: Sequence[Step], seconds: float) -> Counter[Fault]:
    """Does what the steps say, at their times, one beside the other; returns when all is mended, with what was done.

    Only one thing at a time is done to a server and to a process: what comes meanwhile waits for its turn.
    """
    started = asyncio.get_running_loop().time()
    done: Counter[Fault] = Counter()
    turns: dict[object, asyncio.Lock] = {}

    async def at_its_time(step: Step) -> None:
        await asyncio.sleep(started + step.at - asyncio.get_running_loop().time())
        victim = _victim(installation, step)
        async with turns.setdefault(victim, asyncio.Lock()):
            await _inflict_one(installation, step, victim)
        done[step.fault] += 1

    async with asyncio.TaskGroup() as tasks:
        for step in steps:
            tasks.create_task(at_its_time(step))
        tasks.create_task(asyncio.sleep(seconds))
    return done


def _victim(installation: Installation, step: Step) -> object:
    pool: list[Process]
    match step.fault:
        case Fault.KILL_INGEST | Fault.STOP_INGEST:
            pool = installation.ingests
        case Fault.KILL_METER | Fault.STOP_METER:
            pool = installation.meters
        case Fault.KILL_RELAY | Fault.STOP_RELAY:
            pool = installation.relays
        case Fault.ADD_METER | Fault.REMOVE_METER:
            return "how many meter workers there are"
        case Fault.KILL_POSTGRES | Fault.REFUSE_POSTGRES:
            return installation.postgres
        case Fault.KILL_KAFKA | Fault.STOP_KAFKA | Fault.CHANGE_ROUTING:  # it is told over Kafka
            return installation.kafka
    return pool[int(step.choice * len(pool))]


async def _inflict_one(installation: Installation, step: Step, victim: object) -> None:
    match step.fault:
        case Fault.KILL_INGEST | Fault.KILL_METER | Fault.KILL_RELAY:
            assert isinstance(victim, Process)
            await victim.kill(away=step.lasts)
        case Fault.STOP_INGEST | Fault.STOP_METER | Fault.STOP_RELAY:
            assert isinstance(victim, Process)
            await victim.pause(step.lasts)
        case Fault.ADD_METER:
            installation.add_meter()
        case Fault.REMOVE_METER:
            await installation.remove_meter(int(step.choice * len(installation.meters)))
        case Fault.KILL_POSTGRES:
            await installation.kill_postgres(step.lasts)
        case Fault.REFUSE_POSTGRES:
            await installation.refuse_postgres(step.lasts)
        case Fault.KILL_KAFKA:
            await installation.kill_kafka(step.lasts)
        case Fault.STOP_KAFKA:
            await installation.stop_kafka(step.lasts)
        case Fault.CHANGE_ROUTING:
            await installation.change_routing(step.choice)
