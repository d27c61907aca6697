"""The route that ends the rotation of the master key."""

from fastapi import APIRouter
from pydantic import BaseModel

from tenant_service import audit
from tenant_service.config.secrets import rewrap_data_keys
from tenant_service.dependencies import CurrentActor, CurrentRuntime, Now, Platform, Transaction
from tenant_service.identity.signing_keys import rewrap_signing_keys

router = APIRouter(prefix="/v1/master-key", tags=["configuration"], dependencies=[Platform])


class RewrappedOut(BaseModel):
    data_keys: int
    signing_keys: int


@router.post("/rewrap")
async def rewrap(session: Transaction, runtime: CurrentRuntime, actor: CurrentActor, now: Now) -> RewrappedOut:
    """Encrypt all keys with the present master key; afterwards the previous one is not needed. May be repeated."""
    signing_keys = await rewrap_signing_keys(session, runtime.master_key)
    data_keys = await rewrap_data_keys(session, runtime.master_key)
    detail = {"data_keys": data_keys, "signing_keys": signing_keys}
    await audit.record(session, actor, "master_key.rewrap", target="master-key", now=now, detail=detail)
    return RewrappedOut(data_keys=data_keys, signing_keys=signing_keys)
