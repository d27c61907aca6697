"""The audit trail: who did what, in chains of hashes."""

from tenant_service.audit.trail import PLATFORM_CHAIN, WORKER, Actor, Deed, begin_chains, record, record_many

__all__ = ["PLATFORM_CHAIN", "WORKER", "Actor", "Deed", "begin_chains", "record", "record_many"]
