"""How commands of services end: a line that says why, one that says what to do next, and a code."""

import pytest
import typer
from typer.testing import CliRunner

from tenantry.cli import Command, CommandFailed, Group, Misused, Unreachable, printable

FAILURES = {"refused": CommandFailed, "misused": Misused, "unreachable": Unreachable}


@pytest.fixture
def app() -> typer.Typer:
    found = typer.Typer()
    grouped = typer.Typer(cls=Group)
    found.add_typer(grouped, name="grouped")

    @grouped.command()
    @found.command(cls=Command)
    def fail(how: str) -> None:
        raise FAILURES[how]("it [bold]cannot[/] be\x1b[31m", "do another thing")

    @grouped.command()
    def work() -> None:
        pass

    return found


@pytest.mark.parametrize("noun", [[], ["grouped"]])
@pytest.mark.parametrize(("how", "code"), [("refused", 1), ("misused", 2), ("unreachable", 3)])
def test_a_failure_is_said_on_standard_error_with_its_code(
    app: typer.Typer, noun: list[str], how: str, code: int
) -> None:
    done = CliRunner().invoke(app, [*noun, "fail", how])
    assert (done.exit_code, done.stdout) == (code, "")
    assert done.stderr == "error: it [bold]cannot[/] be\\x1b[31m\nnext: do another thing\n"


@pytest.mark.parametrize(
    ("value", "text"), [(None, "-"), (True, "yes"), ({"a": [1]}, '{"a": [1]}'), (5, "5"), ("a\nb", "a\\nb")]
)
def test_values_are_printed_as_they_are_read(value: object, text: str) -> None:
    assert printable(value).plain == text
