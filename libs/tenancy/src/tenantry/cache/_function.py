"""Functions whose results are cached."""

import inspect
from collections.abc import Awaitable, Callable
from functools import update_wrapper
from typing import Any, Generic, ParamSpec, TypeVar, get_args, get_type_hints

from tenantry.cache._envelope import argument_key
from tenantry.cache._namespace import Namespace

T = TypeVar("T")
P = ParamSpec("P")


class CachedFunction(Generic[P, T]):
    """A function whose results are cached; made by `TenantCache.cached`. `values` is where they are kept."""

    def __init__(self, function: Callable[P, Awaitable[T]], values: Namespace[T], key: Callable[P, str]) -> None:
        self._function = function
        self._key = key
        self.values = values
        update_wrapper(self, function)

    async def __call__(self, *args: P.args, **kwargs: P.kwargs) -> T:
        key = self._key(*args, **kwargs)
        # None only where the function itself returns it.
        return await self.values.get_or_load(key, lambda: self._function(*args, **kwargs))  # type: ignore[return-value]

    async def discard(self, *args: P.args, **kwargs: P.kwargs) -> None:
        """Forgets the result for these arguments."""
        await self.values.discard(self._key(*args, **kwargs))


def result_type(function: Callable[..., Any]) -> Any:
    annotation = get_type_hints(function).get("return")
    if annotation is None:
        raise TypeError(f"{function.__qualname__} does not say what it returns")
    present = [each for each in get_args(annotation) if each is not type(None)]
    # That there is none is kept beside the value, so `X | None` is read back as X.
    if type(None) in get_args(annotation) and len(present) == 1:
        return present[0]
    return annotation


def key_of_arguments(function: Callable[P, Any]) -> Callable[P, str]:
    signature = inspect.signature(function)

    def key(*args: P.args, **kwargs: P.kwargs) -> str:
        bound = signature.bind(*args, **kwargs)
        bound.apply_defaults()
        return argument_key(tuple(bound.arguments.values()))

    return key
