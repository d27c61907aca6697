"""Replaces itself by a command that receives a signal when its parent dies.

    python -I -S guard.py LAUNCH

LAUNCH is a JSON object, or the path of a file that holds one: {"command": [...], "signal": number, "parent": process
id or 0 for "whoever started me", "account": name or null, "environment": {added variables}}.
A separate program and no `preexec_fn`: parents run threads and event loops, and a supervisor can start it as well.
It uses the standard library alone, so that it starts within a few hundredths of a second.
"""

from __future__ import annotations

import ctypes
import json
import os
import pwd
import sys
from pathlib import Path

_PR_SET_PDEATHSIG = 1


def become(user: str) -> None:
    account = pwd.getpwnam(user)
    os.initgroups(user, account.pw_gid)
    os.setgid(account.pw_gid)
    os.setuid(account.pw_uid)
    os.environ.update(HOME=account.pw_dir, USER=user, LOGNAME=user)


def die_with_parent(signal_number: int, parent: int) -> None:
    """Linux only; elsewhere the next start finds and stops what was left behind."""
    if sys.platform != "linux":
        return
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, signal_number, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")
    # The parent may have died before the call above; then no signal will ever come.
    if os.getppid() != parent:
        sys.exit(1)


def main(argument: str) -> None:
    launch = json.loads(argument if argument.startswith("{") else Path(argument).read_text(encoding="utf-8"))
    parent = launch["parent"] or os.getppid()
    if launch["account"] is not None:
        become(launch["account"])
    # After become(): the kernel forgets the death signal when credentials change.
    die_with_parent(launch["signal"], parent)
    os.environ.update(launch["environment"])
    os.execvp(launch["command"][0], launch["command"])  # noqa: S606 - the whole purpose


if __name__ == "__main__":
    main(sys.argv[1])
