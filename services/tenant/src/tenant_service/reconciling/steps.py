"""The work of the step that repairs a tenant's place."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from types import MappingProxyType

from sqlalchemy.ext.asyncio import AsyncSession

from tenant_service.domain.findings import may_be_provisioned
from tenant_service.domain.saga import StepFailure, StepName
from tenant_service.runs.due_steps import Claimed
from tenant_service.runs.steps import Finished, SagaSettings, Services, StepOutcome, StepWork, ask_services
from tenant_service.tenants.repository import lock_tenants

PROVISION = "tenant.provision"


async def provision_again(
    session: AsyncSession, claimed: Sequence[Claimed], settings: SagaSettings, now: datetime
) -> Sequence[StepOutcome | StepFailure]:
    """Have the services of the run provision its tenant, which is left alone once it is on its way out."""
    tenants = await lock_tenants(session, {one.run.subject_id for one in claimed})
    staying = [one for one in claimed if may_be_provisioned(tenants[one.run.subject_id][0].status)]

    def services_of(one: Claimed) -> Services:
        return Services(tuple(one.run.data["services"]), ())

    asked = await ask_services(session, staying, settings, now, services_of, lambda _run: PROVISION)
    outcomes = dict(zip([one.run.id for one in staying], asked, strict=True))
    return [outcomes.get(one.run.id) or Finished() for one in claimed]


REPAIR_STEPS: Mapping[StepName, StepWork] = MappingProxyType({StepName.PROVISION_AGAIN: provision_again})
