from __future__ import annotations

from io import StringIO
from pathlib import Path

from rich.console import Console

from tenantry_dev.run.logs import LogView


def test_lines_of_all_processes_appear_once_with_their_process(tmp_path: Path) -> None:
    (tmp_path / "usage-api.log").write_text("old\n")
    output = StringIO()
    view = LogView(tmp_path, Console(file=output, width=20))

    with (tmp_path / "usage-api.log").open("a") as file:
        file.write("a line that is longer than the terminal is wide\nhalf")
    (tmp_path / "kafka.log").write_text("started\n")
    assert view.show() == 2
    with (tmp_path / "usage-api.log").open("a") as file:
        file.write(" a line\n")
    assert view.show() == 1
    assert view.show() == 0

    assert output.getvalue().splitlines() == [
        "         kafka started",
        "     usage-api a line that is longer than the terminal is wide",
        "     usage-api half a line",
    ]


def test_a_rotated_file_is_read_from_its_start(tmp_path: Path) -> None:
    log = tmp_path / "app-api.log"
    log.write_text("a long first line\n")
    view = LogView(tmp_path, Console(quiet=True))

    log.write_text("new\n")

    assert view.show() == 1
