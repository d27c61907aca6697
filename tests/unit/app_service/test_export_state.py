"""How far an export is, from its row and its job."""

import pytest

from app_service.domain import ExportState, export_state


@pytest.mark.parametrize(
    ("status", "finished", "state"),
    [
        ("todo", False, ExportState.QUEUED),
        ("doing", False, ExportState.RUNNING),
        ("failed", False, ExportState.FAILED),
        ("cancelled", False, ExportState.FAILED),
        (None, False, ExportState.FAILED),
        (None, True, ExportState.READY),
        ("doing", True, ExportState.READY),
    ],
)
def test_state(status, finished, state):
    assert export_state(status, finished=finished) is state
