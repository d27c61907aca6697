"""Why a command did not do what it was told, in a line, and what to do next, in another.

CommandFailed           1   something was refused
+-- Misused             2   the command line, or the file, says something that cannot be
+-- Unreachable         3   no answer came
"""

from typing import Any, ClassVar

import typer
from rich.console import Console
from rich.text import Text
from typer.core import TyperGroup


class CommandFailed(Exception):
    exit_code: ClassVar[int] = 1

    def __init__(self, reason: str, next_step: str | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.next_step = next_step


class Misused(CommandFailed):
    exit_code = 2


class Unreachable(CommandFailed):
    exit_code = 3


class Group(TyperGroup):
    """Commands whose failures are explained on standard error and end with their exit code."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except CommandFailed as failure:
            console = Console(stderr=True)
            for style, word, text in (("bold red", "error", failure.reason), ("bold", "next", failure.next_step)):
                if text:
                    console.print(f"[{style}]{word}[/]:", printable(text), soft_wrap=True, highlight=False)
            raise typer.Exit(failure.exit_code) from None


def printable(text: str) -> Text:
    """A text in which neither markup nor the terminal's control codes have an effect."""
    return Text("".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text))
