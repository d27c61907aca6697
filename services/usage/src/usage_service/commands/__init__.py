"""Commands that the usage service adds to `tenantry`, over HTTP alone.

Nothing of the service is imported here but pure functions, so that help and completion come at once.
"""

import typer

from usage_service.commands import imports

usage = typer.Typer(no_args_is_help=True, help="Usage: files of it brought in.")
usage.add_typer(imports.app, name="import")

app = typer.Typer()
app.add_typer(usage, name="usage")
