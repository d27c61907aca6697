from __future__ import annotations

import configparser
import json
import shlex
import signal
from pathlib import Path

import pytest

from tenantry_dev.home import Home
from tenantry_dev.run.supervisor import Program
from tenantry_dev.stack import StackError


def section(home: Home, program: Program) -> dict[str, str]:
    home.create()
    parser = configparser.RawConfigParser(inline_comment_prefixes=(";", "#"))
    parser.read_string(program.section(home))
    return dict(parser[f"program:{program.name}"])


def test_secrets_reach_a_process_whatever_they_contain_and_nobody_else(tmp_path: Path) -> None:
    home = Home(tmp_path)
    secret = "%(x)s ; # ' \" \n é"

    options = section(home, Program("app-api", ["serve", secret], 30, {"APP_SECRET": secret}))

    assert secret not in str(options)
    launch = Path(shlex.split(options["command"])[-1])
    assert launch.stat().st_mode & 0o777 == 0o600
    document = json.loads(launch.read_text())
    assert document["command"] == ["serve", secret]
    assert document["environment"] == {"APP_SECRET": secret}
    assert document["signal"] == signal.SIGKILL


def test_a_crashed_process_is_restarted_for_ever(tmp_path: Path) -> None:
    options = section(Home(tmp_path), Program("usage-meter", ["serve"], 20))

    assert options["autorestart"] == "true"
    assert int(options["startretries"]) >= 100_000
    assert options["stdout_logfile"] == str(tmp_path / "log" / "usage-meter.log")


def test_a_path_that_supervisord_would_cut_short_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StackError, match="cannot be used"):
        section(Home(tmp_path / "a ;b"), Program("x", ["y"], 1))
