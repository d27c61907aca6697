"""The corrections of the usage service over HTTP: batches, until each correction is answered."""

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

from usage_service.commands._api import PASSING, Api, failure_of
from usage_service.commands._ingest import PATIENCE_SECONDS, Patience, Refused, halves

if TYPE_CHECKING:
    import httpx

_PATH: Final = "/v1/events/correct"


class Correcting:
    """POST /v1/events/correct, which takes all corrections of a request or none."""

    def __init__(self, api: Api, *, patience: float = PATIENCE_SECONDS) -> None:
        self._api = api
        self._patience = patience

    async def send(self, lines: Sequence[bytes]) -> list[Refused]:
        """As of a Sender: the same correction again is a copy."""
        refused: list[Refused] = []
        waiting = list(range(len(lines)))
        patience = Patience(self._api, self._patience)
        while waiting:
            response = await patience.post(_PATH, [lines[index] for index in waiting])
            if response is not None and response.is_success:
                break
            if response is None or response.status_code in PASSING:
                await patience.wait(response)
                continue
            if response.status_code == HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
                refused += await halves(self, lines, waiting)
                break
            faults = _faults(response)
            if not faults:
                raise failure_of(response)
            refused += [Refused(waiting[place], "invalid", reason) for place, reason in faults.items()]
            waiting = [index for place, index in enumerate(waiting) if place not in faults]
        return sorted(refused, key=lambda each: each.index)


def _faults(response: "httpx.Response") -> Mapping[int, str]:
    """By place in the request, what is wrong with a correction; empty where it is the request itself."""
    try:
        errors = response.json().get("errors") or ()
    except (ValueError, AttributeError):
        return {}
    return {each["loc"][0]: _reason(each) for each in errors if each.get("loc") and isinstance(each["loc"][0], int)}


def _reason(error: Mapping[str, Any]) -> str:
    place = ".".join(str(part) for part in error["loc"][1:])
    return f"{place}: {error['msg']}" if place else str(error["msg"])
