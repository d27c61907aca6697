"""Why a command did not do what it was told, in a line, and what to do next, in another.

CommandFailed           1   something was refused, or what was looked at does not hold
+-- Misused             2   the command line, or a file that it names, says something that cannot be
+-- Unreachable         3   no answer came
"""

from typing import Any, ClassVar, NoReturn

import typer
from rich.console import Console
from typer.core import TyperCommand, TyperGroup

from tenantry.cli._printing import printable


class CommandFailed(Exception):
    """Ends a `Command`, or a command of a `Group`, with its exit code, explained on standard error."""

    exit_code: ClassVar[int] = 1

    def __init__(self, reason: str, next_step: str | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.next_step = next_step


class Misused(CommandFailed):
    exit_code = 2


class Unreachable(CommandFailed):
    exit_code = 3


class Command(TyperCommand):
    """A command that ends with a failure's exit code."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except CommandFailed as failure:
            _end(failure)


class Group(TyperGroup):
    """Commands of one noun, whose failures end as those of `Command`."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except CommandFailed as failure:
            _end(failure)


def _end(failure: CommandFailed) -> NoReturn:
    errors = Console(stderr=True)
    for style, word, text in (("bold red", "error", failure.reason), ("bold", "next", failure.next_step)):
        if text:
            errors.print(f"[{style}]{word}[/]:", printable(text), soft_wrap=True, highlight=False)
    raise typer.Exit(failure.exit_code) from None
