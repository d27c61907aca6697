"""Why a letter is not replayed."""

from __future__ import annotations

from tenantry import Conflict


class NotReplayable(Conflict):
    """Sending the event again would not count it."""

    type = "not-replayable"
    title = "This dead letter cannot be replayed"
