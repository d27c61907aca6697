"""The ingest of the usage service over HTTP, as an import asks it: batches, in order, until each is answered.

httpx is imported where something is sent: help needs none.
"""

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final, Protocol

from tenantry.cli import Unreachable
from usage_service.commands._api import PASSING, Api, failure_of

if TYPE_CHECKING:
    import httpx

PATIENCE_SECONDS: Final = 300.0
_LONGEST_PAUSE: Final = 10.0
_BATCH: Final = "application/cloudevents-batch+json"
_RATE_LIMITED: Final = "rate-limited"
_TOO_LARGE: Final = "too-large"


@dataclass(frozen=True, slots=True)
class Refused:
    """Of one line: its place in the batch, and why."""

    index: int
    kind: str
    reason: str


class Sender(Protocol):
    """What takes the lines of a file, as JSON."""

    async def send(self, lines: Sequence[bytes]) -> list[Refused]:
        """Sends them until each is accepted or refused for good; returns those refused. May be repeated.

        Raises Unreachable where nobody takes them for long, and CommandFailed where the request itself is refused.
        """
        ...


class Patience:
    """Asks for a batch to be taken, again and again: how soon, and for how long."""

    def __init__(self, api: Api, seconds: float) -> None:
        self._api = api
        self._seconds = seconds
        self.renew()

    def renew(self) -> None:
        """To be called when something was taken."""
        self._deadline, self._pause = time.monotonic() + self._seconds, 0.2

    async def post(
        self,
        path: str,
        lines: Sequence[bytes],
        *,
        params: Mapping[str, str] | None = None,
        media_type: str = "application/json",
    ) -> "httpx.Response | None":
        """The answer to the lines as an array; None where none came."""
        import httpx  # noqa: PLC0415 - see the module

        body = b"[" + b",".join(lines) + b"]"
        try:
            return await self._api.request("POST", path, content=body, params=params, media_type=media_type)
        except httpx.TransportError:
            return None

    async def wait(self, response: "httpx.Response | None") -> None:
        """Waits as long as the answer says. Raises Unreachable when it has been enough."""
        if time.monotonic() > self._deadline:
            raise Unreachable(
                f"the usage service at {self._api.url} has taken nothing for {self._seconds:.0f} seconds "
                f"({_said(response)})"
            )
        await asyncio.sleep(_pause(response, self._pause))
        self._pause = min(self._pause * 2, _LONGEST_PAUSE)


class Ingest:
    """POST /v1/events."""

    def __init__(
        self,
        api: Api,
        *,
        accept_late: bool = False,
        billable: bool = False,
        dry_run: bool = False,
        patience: float = PATIENCE_SECONDS,
    ) -> None:
        self._api = api
        switches = {"partial": True, "accept_late": accept_late, "billable": billable, "dry_run": dry_run}
        self._params = {name: "true" for name, on in switches.items() if on}
        self._patience = patience

    async def send(self, lines: Sequence[bytes]) -> list[Refused]:
        """As of a Sender: an event counts once, however often it is sent."""
        refused: list[Refused] = []
        waiting = list(range(len(lines)))
        patience = Patience(self._api, self._patience)
        while waiting:
            asked = [lines[index] for index in waiting]
            response = await patience.post("/v1/events", asked, params=self._params, media_type=_BATCH)
            if response is not None and response.is_success:
                rejected = [_refused(waiting[each["index"]], each) for each in response.json()["rejected"]]
                # Of a tenant, what is more than its rate ever lets in at once.
                together = [each.index for each in rejected if each.kind == _TOO_LARGE]
                apart = together if len(together) > 1 else []
                refused += [each for each in rejected if each.kind != _RATE_LIMITED and each.index not in apart]
                if apart:
                    refused += await halves(self, lines, apart)
                still = [each.index for each in rejected if each.kind == _RATE_LIMITED]
                if len(still) < len(waiting):
                    patience.renew()
                waiting = still
            elif response is not None and response.status_code == HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
                refused += await halves(self, lines, waiting)
                break
            elif response is not None and response.status_code not in PASSING:
                raise failure_of(response)
            if waiting:
                await patience.wait(response)
        return sorted(refused, key=lambda each: each.index)


async def halves(sender: Sender, lines: Sequence[bytes], waiting: Sequence[int]) -> list[Refused]:
    """What is too large together may do apart; a line that is too large alone is refused."""
    if len(waiting) == 1:
        return [Refused(waiting[0], _TOO_LARGE, "it is too large")]
    middle, refused = len(waiting) // 2, []
    for half in (waiting[:middle], waiting[middle:]):
        answers = await sender.send([lines[index] for index in half])
        refused += [Refused(half[each.index], each.kind, each.reason) for each in answers]
    return refused


def _refused(index: int, error: Mapping[str, Any]) -> Refused:
    return Refused(index, str(error["kind"]), str(error["reason"]))


def _said(response: "httpx.Response | None") -> str:
    return "no answer" if response is None else f"{response.status_code} {response.reason_phrase}"


def _pause(response: "httpx.Response | None", pause: float) -> float:
    told = "" if response is None else response.headers.get("Retry-After", "")
    return max(pause, float(told)) if told.isdigit() else pause
