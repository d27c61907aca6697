"""Which faults happen when: a pure function of a seed, so that a run can be repeated."""

from __future__ import annotations

import random
from dataclasses import dataclass
from enum import Enum

SESSION_SECONDS = 6.0
"""Of a consumer: one that is stopped for longer loses its partitions without knowing."""


class Fault(Enum):
    """What is done to the installation. All of it ends: what is killed starts again, what is stopped goes on."""

    KILL_INGEST = "SIGKILL of an ingest process"
    KILL_METER = "SIGKILL of a meter worker"
    KILL_RELAY = "SIGKILL of a relay"
    STOP_INGEST = "SIGSTOP of an ingest process"
    STOP_METER = "SIGSTOP of a meter worker, for longer than its session"
    STOP_RELAY = "SIGSTOP of a relay"
    FENCE_RELAY = "SIGSTOP of a relay, whose connections to PostgreSQL are cut meanwhile"
    RESTART_INGEST = "SIGTERM of an ingest process"
    RESTART_RELAY = "SIGTERM of a relay"
    ADD_METER = "one more meter worker"
    REMOVE_METER = "SIGTERM of a meter worker, which stays away"
    REFUSE_INGEST = "connections to an ingest process are cut and refused"
    REFUSE_ONE = "connections of one process to PostgreSQL are cut and refused"
    KILL_POSTGRES = "SIGKILL of PostgreSQL"
    STOP_POSTGRES = "SIGSTOP of PostgreSQL"
    RESTART_POSTGRES = "an orderly restart of PostgreSQL"
    REFUSE_POSTGRES = "connections to PostgreSQL are cut and refused"
    KILL_KAFKA = "SIGKILL of Kafka"
    STOP_KAFKA = "SIGSTOP of Kafka"
    RESTART_KAFKA = "an orderly restart of Kafka"
    REFUSE_KAFKA = "connections to Kafka are cut and refused"
    CHANGE_ROUTING = "other keys for the events of a hot tenant"


# How long each lasts at least and at most, in seconds, and how often it comes in a round of all.
_LASTS = {
    Fault.KILL_INGEST: (0.0, 2.0, 1),
    Fault.KILL_METER: (0.0, 2.0, 2),
    Fault.KILL_RELAY: (0.0, 2.0, 1),
    Fault.STOP_INGEST: (1.0, 8.0, 1),
    Fault.STOP_METER: (SESSION_SECONDS + 2.0, SESSION_SECONDS + 6.0, 1),
    Fault.STOP_RELAY: (3.0, 12.0, 1),
    Fault.FENCE_RELAY: (4.0, 12.0, 1),
    Fault.RESTART_INGEST: (0.0, 0.0, 1),
    Fault.RESTART_RELAY: (0.0, 0.0, 1),
    Fault.ADD_METER: (0.0, 0.0, 1),
    Fault.REMOVE_METER: (0.0, 0.0, 1),
    Fault.REFUSE_INGEST: (0.5, 6.0, 1),
    Fault.REFUSE_ONE: (0.5, 8.0, 1),
    Fault.KILL_POSTGRES: (0.0, 4.0, 1),
    Fault.STOP_POSTGRES: (1.0, 6.0, 1),
    Fault.RESTART_POSTGRES: (0.0, 1.0, 1),
    Fault.REFUSE_POSTGRES: (0.5, 6.0, 1),
    Fault.KILL_KAFKA: (0.0, 4.0, 1),
    Fault.STOP_KAFKA: (1.0, 9.0, 1),
    Fault.RESTART_KAFKA: (0.0, 1.0, 1),
    Fault.REFUSE_KAFKA: (0.5, 6.0, 1),
    Fault.CHANGE_ROUTING: (0.0, 0.0, 2),
}
_PAUSE = (0.2, 2.0)


@dataclass(frozen=True, slots=True)
class Step:
    """`at` seconds after the start a fault begins, which `lasts` so long; `choice` picks the process it hits."""

    at: float
    fault: Fault
    lasts: float
    choice: float


def schedule(seed: int, seconds: float) -> list[Step]:
    """The steps of a run. Every fault comes before any comes twice as often as it should."""
    dice = random.Random(seed)  # noqa: S311
    steps: list[Step] = []
    bag: list[Fault] = []
    at = dice.uniform(*_PAUSE)
    while at < seconds:
        if not bag:
            bag = [fault for fault, (_, _, times) in _LASTS.items() for _ in range(times)]
            dice.shuffle(bag)
        fault = bag.pop()
        least, most, _ = _LASTS[fault]
        steps.append(Step(at, fault, dice.uniform(least, most), dice.random()))
        at += dice.uniform(*_PAUSE)
    return steps
