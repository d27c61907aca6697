"""A reconciler that runs until it is killed."""

import asyncio
from datetime import timedelta

from tenant_service.reconciling.policy import ReconcilingPolicy
from tenant_service.reconciling.worker import Reconciler
from tenant_service.transactions import Transactions
from tenantry import SystemClock
from tenantry.database import Databases, DatabaseSettings
from tenantry.events import KafkaSettings


async def main() -> None:
    databases = Databases("tenant", DatabaseSettings.from_env("tenant"))
    policy = ReconcilingPolicy(
        services=("app",), provisioning=("app",), every=None, tolerance=timedelta(milliseconds=300)
    )
    await Reconciler(Transactions(databases), KafkaSettings(), policy, SystemClock()).run()


asyncio.run(main())
