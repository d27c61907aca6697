"""No service starts a task that would go on as the tenant of the request that started it."""

import ast
from pathlib import Path

SERVICES = Path(__file__).parents[2] / "services"

# Where it is done all the same, and why that is right.
ALLOWED = {
    "tenant_service/runtime.py": "started with the process, before any request",
    "billing_service/runtime.py": "started with the process, before any request",
    "usage_service/commands/_importing.py": "a command, which has neither requests nor tenants",
    "billing_service/dashboard/stream.py": "ends with the response that it belongs to",
    "usage_service/tokens/vault.py": "the request waits for it",
}
COPIES_THE_CONTEXT = {"create_task", "ensure_future", "run_in_executor"}


def copies(path):
    """Calls of `asyncio.create_task` and its like; those of a TaskGroup end with the block that they stand in.

    A new `Context()` copies nothing.
    """
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.Call):
            continue
        if any(each.arg == "context" and ast.unparse(each.value) == "Context()" for each in node.keywords):
            continue
        called = node.func
        if isinstance(called, ast.Attribute) and called.attr in COPIES_THE_CONTEXT:
            owner = ast.unparse(called.value)
            if owner in {"asyncio", "loop"} or owner.endswith("_loop()"):
                yield node.lineno
        elif isinstance(called, ast.Name) and called.id in COPIES_THE_CONTEXT:
            yield node.lineno


def test_no_service_code_copies_a_requests_context_into_a_task():
    found = {
        "/".join(path.relative_to(SERVICES).parts[2:]): list(copies(path)) for path in SERVICES.glob("*/src/**/*.py")
    }
    assert {path: lines for path, lines in found.items() if lines and path not in ALLOWED} == {}
    assert {path for path in ALLOWED if found.get(path)} == ALLOWED.keys()


def test_the_search_finds_what_it_looks_for(tmp_path):
    calls = ["asyncio.create_task(f())", "asyncio.get_running_loop().create_task(f())", "tasks.create_task(f())"]
    calls += ["asyncio.create_task(f(), context=Context())", "asyncio.create_task(f(), context=copy_context())"]
    (tmp_path / "x.py").write_text("\n".join(calls))
    assert list(copies(tmp_path / "x.py")) == [1, 2, 5]
