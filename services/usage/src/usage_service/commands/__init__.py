"""Commands that the usage service adds to `tenantry`, over HTTP alone.

Nothing of the service is imported here but pure functions, so that help and completion come at once.
"""

import typer

from usage_service.commands import dead_letters, imports

usage = typer.Typer(no_args_is_help=True, help="Files brought in as usage, and what could not be counted.")
usage.add_typer(imports.app, name="import")
usage.add_typer(dead_letters.app, name="dead-letters")

app = typer.Typer()
app.add_typer(usage, name="usage")
