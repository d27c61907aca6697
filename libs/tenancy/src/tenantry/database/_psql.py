r"""Runs the operator's psql scripts from Python, so that roles and grants are written down once.

Understood is what those scripts use: ``:'name'`` and ``:"name"``, ``\gset``, ``\gexec``, ``\if :{?name}``, ``\else``,
``\endif``, ``\connect``, ``\ir``, and ``\set ON_ERROR_STOP``, which is always on here. A statement ends with a
semicolon at the end of a line; every statement is one call.
"""

import asyncio
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import asyncpg

from tenantry.database._names import literal, quote
from tenantry.database._url import dsn, with_database

_VARIABLE = re.compile(r"""(?<!:):(?:'(?P<literal>\w+)'|"(?P<identifier>\w+)")""")
_COMMENT = re.compile(r"^\s*--")
_CONDITION = re.compile(r"^\\if :\{\?(\w+)\}$")


def script_path(name: str) -> Path:
    """Where an operator's script lies: in the installed package, else in the repository."""
    packaged = Path(__file__).with_name(name)
    if packaged.exists():
        return packaged
    return Path(__file__).parents[5] / "infra" / "postgres" / name


async def run_script(url: str, path: Path, variables: Mapping[str, str]) -> None:
    """Executes ``path`` with psql's meaning, as the user of ``url``.

    Statements commit one by one, as in psql. Raises ``KeyError`` for a variable that is not given and whatever the
    server says, with nothing undone: the scripts may be run again.
    """
    await _Run(url, dict(variables)).script(path)


class _Run:
    def __init__(self, url: str, variables: dict[str, str]) -> None:
        self._url = url
        self._variables = variables
        self._connections: list[asyncpg.Connection] = []

    async def script(self, path: Path) -> None:
        try:
            await self._connect(self._url)
            await self._execute_file(path)
        finally:
            for connection in reversed(self._connections):
                await connection.close()

    async def _connect(self, url: str) -> None:
        # The earlier connection stays open to the end: it holds the script's advisory lock.
        self._connections.append(await asyncpg.connect(dsn(url)))

    async def _execute_file(self, path: Path) -> None:
        for statement, command, argument in _steps(
            await asyncio.to_thread(path.read_text, encoding="utf-8"), self._variables
        ):
            connection = self._connections[-1]
            text = self._substitute(statement)
            match command:
                case "":
                    await connection.execute(text)
                case "gset":
                    row = await connection.fetchrow(text)
                    self._variables.update(dict(row or {}))
                case "gexec":
                    for row in await connection.fetch(text):
                        await connection.execute(row[0])
                case "connect":
                    database = self._variables[argument.strip(':"')]
                    await self._connect(with_database(self._url, database))
                case "ir":
                    await self._execute_file(path.with_name(argument))
                case _:
                    msg = f"{path.name}: \\{command} is not supported"
                    raise ValueError(msg)

    def _substitute(self, statement: str) -> str:
        def value(match: re.Match[str]) -> str:
            if name := match["literal"]:
                return literal(self._variables[name])
            return quote(self._variables[match["identifier"]])

        return _VARIABLE.sub(value, statement)


def _steps(script: str, variables: Mapping[str, str]) -> Iterator[tuple[str, str, str]]:
    """(statement, command, argument) of every active step, as the run reaches it."""
    statement: list[str] = []
    for line in _active_lines(script, variables):
        if line.startswith("\\"):
            command, _, argument = line[1:].partition(" ")
            if command != "set":
                yield "", command, argument
            continue
        text, _, command = line.partition(" \\")
        statement.append(text)
        if command or text.endswith(";"):
            yield "\n".join(statement).removesuffix(";"), command, ""
            statement.clear()


def _active_lines(script: str, variables: Mapping[str, str]) -> Iterator[str]:
    """The lines that count: no comments, nothing below a condition that is false when it is reached."""
    active = [True]
    for raw in script.splitlines():
        line = raw.rstrip()
        if not line or _COMMENT.match(line):
            continue
        if condition := _CONDITION.match(line):
            active.append(active[-1] and condition[1] in variables)
        elif line == "\\else":
            active[-1] = active[-2] and not active[-1]
        elif line == "\\endif":
            active.pop()
        elif active[-1]:
            yield line
