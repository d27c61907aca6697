"""Files that commands write: whole or not at all."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from tenantry.cli import CommandFailed, Misused


@contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """What is written into it takes `path`'s place when the block ends; nothing is left where it fails.

    Raises `CommandFailed`.
    """
    part = path.with_name(f"{path.name}.part")
    try:
        with part.open("wb") as out:
            yield out
        part.replace(path)
    except OSError as error:
        _drop(part)
        raise CommandFailed(
            f"{path} cannot be written: {error.strerror or error}",
            "name a file in a folder that can be written, with room",
        ) from None
    except BaseException:
        _drop(part)
        raise


def make_folder(path: Path) -> None:
    """Have a folder that files can be written into. Raises `Misused`."""
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        raise Misused(
            f"no file can be written into {path}: {error.strerror or error}", "name a folder that can be written"
        ) from None


def _drop(part: Path) -> None:
    try:
        part.unlink(missing_ok=True)
    except OSError:  # what kept it from being made keeps it from being there
        return
