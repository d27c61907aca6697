"""How `tenantry up` ends when it is told to."""

import signal
import subprocess
import sys

import pytest

SCRIPT = """
import asyncio, signal, sys
signal.signal(signal.SIGINT, signal.SIG_IGN)
from rich.console import Console
from tenantry_dev.run.terminal import run_guarded

async def wait():
    print("ready", flush=True)
    await asyncio.sleep(60)

def work():
    asyncio.run(wait())
    return 0

sys.exit(run_guarded(Console(), work))
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_background_job_of_a_shell_can_be_stopped(number):
    with subprocess.Popen([sys.executable, "-c", SCRIPT], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(number)
        assert process.wait(timeout=20) == 130
