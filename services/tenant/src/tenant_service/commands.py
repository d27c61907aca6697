"""Commands that the tenant service adds to `tenantry`."""

import json
from pathlib import Path
from typing import Annotated, Any, NoReturn

import httpx
import typer
from rich.console import Console

app = typer.Typer()

DEFAULT_CREDENTIALS = Path(".tenantry/operator.json")
TIMEOUT_SECONDS = 10.0

_out = Console()
_errors = Console(stderr=True)

Credentials = Annotated[
    Path, typer.Option(envvar="TENANTRY_OPERATOR_FILE", help="File with client_id, client_secret and urls.tenant.")
]


@app.command()
def login(
    credentials: Credentials = DEFAULT_CREDENTIALS,
    *,
    next_url: Annotated[str | None, typer.Option("--next", help="Where the browser goes after signing in.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Print an address that signs a browser in.

    It works once, within ten minutes.
    """
    try:
        operator = json.loads(credentials.read_bytes())
        code = request_code(operator, next_url)
    except (OSError, ValueError, KeyError) as error:
        _fail(f"{credentials} cannot be used ({error!r}); it is written by `make up`")
    except httpx.HTTPStatusError as error:
        _fail(f"the tenant service answered {error.response.status_code}: {_detail(error.response)}")
    except httpx.HTTPError as error:
        _fail(f"the tenant service cannot be reached ({error!r}); is it running?")
    if as_json:
        _out.print_json(data=code)
    else:
        _out.print(code["url"], soft_wrap=True, highlight=False)


def request_code(operator: dict[str, Any], next_url: str | None) -> dict[str, Any]:
    """A one-time code for the operator whose credentials these are. Raises `KeyError` and httpx's errors."""
    base_url = operator["urls"]["tenant"]
    with httpx.Client(base_url=base_url, timeout=TIMEOUT_SECONDS) as http:
        grant = {
            "grant_type": "client_credentials",
            "client_id": operator["client_id"],
            "client_secret": operator["client_secret"],
            "audience": "tenant",
        }
        token = http.post("/oauth/token", data=grant).raise_for_status().json()["access_token"]
        headers = {"Authorization": f"Bearer {token}"}
        answer = http.post("/v1/sign-in-codes", json={"next": next_url}, headers=headers).raise_for_status()
    code: dict[str, Any] = answer.json()
    return code


def _detail(response: httpx.Response) -> str:
    try:
        return str(response.json()["detail"])
    except (ValueError, KeyError, TypeError):
        return response.reason_phrase


def _fail(reason: str) -> NoReturn:
    _errors.print(f"[bold red]cannot sign in[/]: {reason}", soft_wrap=True)
    raise typer.Exit(1)
