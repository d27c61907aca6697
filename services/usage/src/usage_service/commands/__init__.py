"""Commands that the usage service adds to `tenantry`, over HTTP alone.

Nothing of the service is imported here but pure functions, so that help and completion come at once.
"""

import typer

from tenantry.cli import Group
from usage_service.commands import billing, corrections, dead_letters, erasures, imports, meters, rollups, routing

usage = typer.Typer(
    cls=Group,
    no_args_is_help=True,
    help="Usage brought in from files, corrected, and erased; and what could not be counted.",
)
usage.add_typer(imports.app, name="import")
usage.add_typer(dead_letters.app, name="dead-letters")
usage.add_typer(meters.app, name="meters")
usage.add_typer(routing.app, name="routing")
usage.command()(corrections.correct)
usage.command()(billing.bill_from)
usage.command()(billing.unbilled)
usage.command()(erasures.erase)
usage.command()(rollups.republish)

app = typer.Typer()
app.add_typer(usage, name="usage")
