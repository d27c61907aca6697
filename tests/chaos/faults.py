"""Carries a schedule out."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence

from .installation import Installation
from .process import Process
from .schedule import Fault, Step


async def inflict(installation: Installation, steps: Sequence[Step], seconds: float) -> Counter[Fault]:
    """Does what the steps say, at their times, one beside the other; returns when all is mended, with what has hit.

    Only one thing at a time is done to a server and to a process: what comes meanwhile waits for its turn.
    """
    started = asyncio.get_running_loop().time()
    hits: Counter[Fault] = Counter()
    turns: dict[object, asyncio.Lock] = {}

    async def at_its_time(step: Step) -> None:
        await asyncio.sleep(started + step.at - asyncio.get_running_loop().time())
        victim = _victim(installation, step)
        async with turns.setdefault(victim, asyncio.Lock()):
            hits[step.fault] += await _inflict_one(installation, step, victim)

    async with asyncio.TaskGroup() as tasks:
        for step in steps:
            tasks.create_task(at_its_time(step))
        tasks.create_task(asyncio.sleep(seconds))
    return +hits


def _victim(installation: Installation, step: Step) -> object:
    pool: list[Process]
    match step.fault:
        case Fault.KILL_INGEST | Fault.STOP_INGEST | Fault.RESTART_INGEST | Fault.REFUSE_INGEST:
            pool = installation.ingests
        case Fault.KILL_METER | Fault.STOP_METER:
            pool = installation.meters
        case Fault.KILL_RELAY | Fault.STOP_RELAY | Fault.FENCE_RELAY | Fault.RESTART_RELAY:
            pool = installation.relays
        case Fault.REFUSE_ONE:
            pool = [*installation.meters, *installation.relays]
        case Fault.ADD_METER | Fault.REMOVE_METER:
            return "how many meter workers there are"
        case Fault.KILL_POSTGRES | Fault.STOP_POSTGRES | Fault.RESTART_POSTGRES | Fault.REFUSE_POSTGRES:
            return installation.postgres
        case _:  # routing is told over Kafka
            return installation.kafka
    return pool[int(step.choice * len(pool))]


async def _inflict_one(installation: Installation, step: Step, victim: object) -> bool:
    if isinstance(victim, Process):
        return await _inflict_on_process(installation, step, victim)
    match step.fault:
        case Fault.ADD_METER:
            return await installation.add_meter()
        case Fault.REMOVE_METER:
            return await installation.remove_meter(int(step.choice * len(installation.meters)))
        case Fault.CHANGE_ROUTING:
            await installation.change_routing(step.choice)
        case _:
            await _ON_SERVERS[step.fault](installation, step.lasts)
    return True


async def _inflict_on_process(installation: Installation, step: Step, victim: Process) -> bool:
    match step.fault:
        case Fault.KILL_INGEST | Fault.KILL_METER | Fault.KILL_RELAY:
            return await victim.kill(away=step.lasts)
        case Fault.STOP_INGEST | Fault.STOP_METER | Fault.STOP_RELAY:
            return await victim.pause(step.lasts)
        case Fault.FENCE_RELAY:
            return await victim.pause(step.lasts, cut_off=True)
        case Fault.RESTART_INGEST | Fault.RESTART_RELAY:
            return await victim.restart()
        case Fault.REFUSE_INGEST:
            return await installation.refuse_ingest(victim, step.lasts)
        case Fault.REFUSE_ONE:
            return await victim.refuse_database(step.lasts)
    raise AssertionError(step.fault)


_ON_SERVERS: Mapping[Fault, Callable[[Installation, float], Awaitable[None]]] = {
    Fault.KILL_POSTGRES: Installation.kill_postgres,
    Fault.STOP_POSTGRES: Installation.stop_postgres,
    Fault.RESTART_POSTGRES: Installation.restart_postgres,
    Fault.REFUSE_POSTGRES: Installation.refuse_postgres,
    Fault.KILL_KAFKA: Installation.kill_kafka,
    Fault.STOP_KAFKA: Installation.stop_kafka,
    Fault.RESTART_KAFKA: Installation.restart_kafka,
    Fault.REFUSE_KAFKA: Installation.refuse_kafka,
}
