"""The unprivileged account that PostgreSQL runs under when everything else runs as root."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
from pathlib import Path

from tenantry_dev.stack.errors import StackError

ACCOUNT = "tenantry"
_TEST = "/usr/bin/test"


def server_account() -> str | None:
    """Name of the account to drop to, made on first use; None when we are not root and need not drop anything."""
    if os.geteuid() != 0:
        return None
    for name in (ACCOUNT, "nobody"):
        try:
            return pwd.getpwnam(name).pw_name
        except KeyError:
            if name == ACCOUNT and _create(ACCOUNT):
                return ACCOUNT
    raise StackError(
        "PostgreSQL does not run as root and no other account exists.\n"
        f"Create one and start again:  useradd --system --no-create-home {ACCOUNT}"
    )


def can(account: str | None, access: str, path: Path) -> bool:
    """Whether the account may `access` ("r", "w", "x") the path: asked of the kernel, as that account, not computed."""
    if account is None:
        return os.access(path, {"r": os.R_OK, "w": os.W_OK, "x": os.X_OK}[access])
    entry = pwd.getpwnam(account)
    asked = subprocess.run(  # noqa: S603 - our own arguments
        [_TEST, f"-{access}", str(path)], user=entry.pw_uid, group=entry.pw_gid, extra_groups=[], check=False, cwd="/"
    )
    return asked.returncode == 0


def own(account: str | None, path: Path) -> None:
    """Gives the directory itself, not what it holds, to the account, closed to everybody else."""
    if account is not None:
        entry = pwd.getpwnam(account)
        os.chown(path, entry.pw_uid, entry.pw_gid)
    path.chmod(0o700)


def _create(name: str) -> bool:
    useradd = shutil.which("useradd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    if useradd is None:
        return False
    command = [useradd, "--system", "--no-create-home", "--home-dir", "/nonexistent", "--shell", "/usr/sbin/nologin"]
    made = subprocess.run([*command, name], check=False, capture_output=True)  # noqa: S603 - our own arguments
    # 9: it exists by now, another start won the race.
    return made.returncode in {0, 9}
