"""`tenantry login`."""

from pathlib import Path
from typing import Annotated

import typer

from tenant_service.commands._arguments import AsJson
from tenant_service.commands._client import connect
from tenant_service.commands._output import print_json, print_line
from tenantry.cli import Command

app = typer.Typer()


@app.command(cls=Command)
def login(
    credentials: Annotated[
        Path | None, typer.Option(help="File with client_id, client_secret and urls.tenant.", show_default=False)
    ] = None,
    *,
    next_url: Annotated[str | None, typer.Option("--next", help="Where the browser goes after signing in.")] = None,
    as_json: AsJson = False,
) -> None:
    """Print an address that signs a browser in.

    It works once, within ten minutes.
    """
    with connect(file=credentials) as api:
        code = api.post("/v1/sign-in-codes", {"next": next_url})
    if as_json:
        print_json(code)
    else:
        print_line(code["url"])
