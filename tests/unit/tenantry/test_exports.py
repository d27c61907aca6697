"""The public packages export what they say, sorted, and nothing needs Kafka to be imported."""

import importlib
import subprocess
import sys

import pytest

PUBLIC = [
    "tenantry",
    "tenantry.identity",
    "tenantry.http",
    "tenantry.cli",
    "tenantry.config",
    "tenantry.features",
    "tenantry.database",
    "tenantry.events",
]


@pytest.mark.parametrize("name", [*PUBLIC, "tenantry.metering", "tenantry.doctor"])
def test_exports_are_there_and_sorted(name):
    module = importlib.import_module(name)
    exports = module.__all__
    constants = [export for export in exports if export.isupper()]
    classes = [export for export in exports if export[0].isupper() and not export.isupper()]
    functions = [export for export in exports if export[0].islower()]
    assert exports == [*sorted(constants), *sorted(classes), *sorted(functions)]
    for export in exports:
        assert getattr(module, export) is not None


def test_the_library_is_imported_without_kafka():
    script = "import sys; sys.modules['aiokafka'] = None; import tenantry, tenantry.http, tenantry.identity"
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)


@pytest.mark.parametrize("name", PUBLIC)
def test_each_package_can_be_imported_first(name):
    subprocess.run([sys.executable, "-c", f"import {name}"], check=True, timeout=60)
