"""Names that a package exports and imports only when they are asked for (PEP 562)."""

import sys
from collections.abc import Callable, Iterable, Mapping
from importlib import import_module
from typing import Any, Final

# What the extras bring, by the name that is imported: so that a missing one can be named.
_EXTRA_OF: Final = {
    "aiokafka": "kafka",
    "alembic": "migrations",
    "anyio": "fastapi",
    "celery": "celery",
    "cryptography": "fastapi",
    "fastapi": "fastapi",
    "httpx": "fastapi",
    "joserfc": "fastapi",
    "obstore": "export",
    "openfeature": "features",
    "opentelemetry": "otel",
    "procrastinate": "jobs",
    "psycopg": "sync",
    "pydantic": "fastapi",
    "pydantic_settings": "fastapi",
    "redis": "redis",
    "rich": "cli",
    "sqlglot": "doctor",
    "starlette": "fastapi",
    "typer": "cli",
    "yaml": "kafka",
}


def lazy_exports(package: str, names: Mapping[str, Iterable[str]]) -> Callable[[str], Any]:
    """The `__getattr__` of `package`, which imports a name from its module at the first use; `names` are by module.

    It raises `ImportError` with the extra to install where that module needs a distribution that is not there.
    """
    module_of = {name: f"{package}.{module}" for module, found in names.items() for name in found}

    def get(name: str) -> Any:
        if name not in module_of:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        try:
            value = getattr(import_module(module_of[name]), name)
        except ModuleNotFoundError as error:
            extra = _EXTRA_OF.get((error.name or "").partition(".")[0])
            if extra is None:
                raise
            raise ImportError(
                f"{package}.{name} needs {error.name}: pip install 'tenantry[{extra}]'", name=error.name
            ) from error
        setattr(sys.modules[package], name, value)
        return value

    return get
