"""docs/testing.md does what it says: its example is run as a project of its own, without any of our fixtures."""

import asyncio
import os
import re
import sys
from pathlib import Path

from boards_world import MIGRATIONS

import tenantry.testing

DOCS = Path(__file__).parents[2] / "docs" / "testing.md"
SUPPORT = MIGRATIONS.parent


async def test_the_example_finds_nothing_in_the_product(postgres_url, tmp_path):
    found = re.search(r"^```python\n(.*?)^```$", DOCS.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    assert found is not None
    (tmp_path / "test_isolation.py").write_text(found[1], "utf-8")
    (tmp_path / "pytest.ini").write_text("[pytest]\nanyio_mode = auto\n", "utf-8")
    product = f"from pathlib import Path\nfrom boards_product import *\nMIGRATIONS = Path({str(MIGRATIONS)!r})\n"
    (tmp_path / "boards.py").write_text(product, "utf-8")
    arguments = ["-q", "-p", "no:cacheprovider", "--tenantry-postgres", postgres_url, "--timeout=200"]
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "pytest", *arguments, "test_isolation.py"),
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": f"{tmp_path}{os.pathsep}{SUPPORT}"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    assert process.returncode == 0, output.decode()[-5000:]
    assert "3 passed" in output.decode()


def test_every_public_name_is_in_the_documentation():
    text = DOCS.read_text("utf-8")
    names = set(tenantry.testing.__all__) - {"pytest_addoption", "service_templates"}  # pytest's own, and a part of one
    assert {name for name in names if not re.search(rf"\b{name}\b", text)} == set()
