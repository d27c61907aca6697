"""The core works without procrastinate, and says what is missing."""

import subprocess
import sys

WITHOUT = "import sys; sys.modules['procrastinate'] = None\n"


def run(script):
    return subprocess.run([sys.executable, "-c", script], check=False, timeout=60, capture_output=True, text=True)


def test_a_catalogue_can_name_the_tables_without_procrastinate():
    done = run(WITHOUT + "from tenantry.jobs import JOB_TABLES; import tenantry; assert JOB_TABLES")
    assert done.returncode == 0, done.stderr


def test_importing_the_library_does_not_import_procrastinate():
    done = run("import sys, tenantry, tenantry.jobs; assert 'procrastinate' not in sys.modules")
    assert done.returncode == 0, done.stderr


def test_what_needs_it_says_so():
    done = run(WITHOUT + "from tenantry.jobs import Jobs")
    assert "pip install 'tenantry[jobs]'" in done.stderr
