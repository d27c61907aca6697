"""The command line and how services plug into it. Needs the extra `tenantry[cli]`."""

from typing import TYPE_CHECKING

from tenantry._exports import lazy_exports
from tenantry.cli._failures import Command, CommandFailed, Group, Misused, Unreachable
from tenantry.cli._main import main, run_or_exit
from tenantry.cli._printing import printable
from tenantry.cli._roles import Role, UnknownRole, installed_roles, installed_services, select_roles

if TYPE_CHECKING:
    from tenantry.cli._serve import run_roles, serve_http

__all__ = [
    "Command",
    "CommandFailed",
    "Group",
    "Misused",
    "Role",
    "UnknownRole",
    "Unreachable",
    "installed_roles",
    "installed_services",
    "main",
    "printable",
    "run_or_exit",
    "run_roles",
    "select_roles",
    "serve_http",
]

# A command that serves nothing need not wait for the server.
__getattr__ = lazy_exports(
    __name__,
    {
        "_serve": (
            "run_roles",
            "serve_http",
        ),
    },
)
