"""How far an export is, and what is in it."""

from dataclasses import dataclass
from enum import StrEnum


@dataclass(frozen=True, slots=True)
class PackedExport:
    """What an archive holds, and its size in bytes."""

    documents: int
    files: int
    size: int
    sha256: bytes


class ExportState(StrEnum):
    QUEUED = "queued"
    RUNNING = "running"
    READY = "ready"
    FAILED = "failed"


def export_state(job_status: str | None, *, finished: bool) -> ExportState:
    """From what its job has left in the rows, and from how the job stands: None where there is none any more.

    A job that is gone without an archive was given up, and swept away since.
    """
    if finished:
        return ExportState.READY
    return {"todo": ExportState.QUEUED, "doing": ExportState.RUNNING}.get(job_status or "", ExportState.FAILED)
