from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tenantry_dev.home import Home, Secrets, read_json, write_json
from tenantry_dev.stack import StackError


def test_the_environment_moves_the_state_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TENANTRY_HOME", str(tmp_path / "elsewhere"))

    assert Home().directory == tmp_path / "elsewhere"


def test_one_run_at_a_time(tmp_path: Path) -> None:
    home = Home(tmp_path)

    with home.exclusive():
        assert home.holder() == os.getpid()
        with pytest.raises(StackError, match=rf"process {os.getpid()}"), home.exclusive():
            pass
    assert home.holder() is None


def test_secrets_are_made_once_and_closed_to_others(tmp_path: Path) -> None:
    home = Home(tmp_path)

    first = Secrets(home)["operator"]

    assert Secrets(home)["operator"] == first
    assert Secrets(home)["other"] != first
    assert len(first) >= 43
    assert (tmp_path / "secrets.json").stat().st_mode & 0o777 == 0o600


def test_a_document_is_replaced_as_a_whole(tmp_path: Path) -> None:
    path = tmp_path / "operator.json"
    write_json(path, {"a": 1})
    write_json(path, {"b": 2})

    assert json.loads(path.read_text()) == {"b": 2}
    assert path.stat().st_mode & 0o777 == 0o600
    assert list(tmp_path.iterdir()) == [path]


def test_a_damaged_document_names_itself(tmp_path: Path) -> None:
    path = tmp_path / "ports.json"
    path.write_text("{")

    with pytest.raises(StackError, match=r"ports\.json is damaged"):
        read_json(path)


def test_the_supervisors_socket_fits_its_address(tmp_path: Path) -> None:
    deep = Home(tmp_path / ("d" * 100))

    assert len(os.fsencode(deep.socket)) < 100
    assert Home(tmp_path / ("e" * 100)).socket != deep.socket
