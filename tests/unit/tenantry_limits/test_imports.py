"""Limits and the cache need no Redis client, and can be imported first."""

import importlib
import subprocess
import sys

import pytest


@pytest.mark.parametrize("package", ["tenantry.limits", "tenantry.cache"])
def test_a_package_is_imported_first_and_without_redis(package):
    script = f"import sys; sys.modules['redis'] = None; import {package}, tenantry"
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)


@pytest.mark.parametrize("package", ["tenantry.limits", "tenantry.cache"])
def test_exports_are_there_and_sorted(package):
    module = importlib.import_module(package)
    constants = [export for export in module.__all__ if export.isupper()]
    classes = [export for export in module.__all__ if export[0].isupper() and not export.isupper()]
    functions = [export for export in module.__all__ if export[0].islower()]
    assert module.__all__ == [*sorted(constants), *sorted(classes), *sorted(functions)]
    assert all(getattr(module, export) is not None for export in module.__all__)
