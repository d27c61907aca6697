"""A saga worker that kills itself: `dying_worker.py STEP before|after`, the step's effects being lost either way."""

import asyncio
import os
import signal
import sys
from datetime import timedelta
from typing import Any

from tenacity.wait import wait_fixed

from tenant_service.domain.saga import RetryPolicy, RunKind, StepName
from tenant_service.runs.steps import SagaSettings
from tenant_service.runs.work import WORK
from tenant_service.runs.worker import SagaWorker
from tenant_service.transactions import Transactions
from tenantry import SystemClock
from tenantry.database import Databases, DatabaseSettings

SETTINGS = SagaSettings(
    services={RunKind.PROVISION: ("app",), RunKind.CLOCK_ADVANCE: ()},
    retry=RetryPolicy(wait=wait_fixed(5), attempts=3, answer_within=timedelta(seconds=30)),
)


async def main(name: str, moment: str) -> None:
    work = WORK[StepName(name)]

    async def deadly(*arguments: Any) -> Any:
        if moment == "after":
            await work(*arguments)
            await arguments[0].flush()
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError("unreachable")

    settings = DatabaseSettings.from_env("tenant")
    databases = Databases("tenant", settings)
    worker = SagaWorker(
        Transactions(databases).begin,
        settings.system_database_url or "",
        SETTINGS,
        SystemClock(),
        concurrency=1,
        work={**WORK, StepName(name): deadly},
    )
    await worker.run()


asyncio.run(main(*sys.argv[1:]))
