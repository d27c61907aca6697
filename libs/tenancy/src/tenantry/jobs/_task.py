"""A task: what a job does, as a function with named, typed arguments."""

import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Concatenate, Final, Generic, Literal, ParamSpec, get_type_hints, overload

import msgspec
from procrastinate import BaseRetryStrategy, RetryStrategy

from tenantry._clock import Clock
from tenantry._tenant import Tenant
from tenantry.database import ReadSession, WriteSession
from tenantry.jobs._errors import JobTooLarge, UnreadableJob

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager

    from tenantry._tenancy import Tenancy

P = ParamSpec("P")

MAX_ARGUMENT_BYTES: Final = 16 * 1024
DEFAULT_RETRY: Final = RetryStrategy(max_attempts=7, exponential_wait=3)
"""After 3, 9, 27, 81, 243, 729 and 2187 seconds: an hour in all."""


@dataclass(frozen=True, slots=True)
class Job:
    """What a task is given first: which job this is, whose, and the way to that tenant's rows."""

    id: int
    tenant: Tenant
    attempt: int
    """1 for the first."""
    tenancy: "Tenancy"

    @property
    def clock(self) -> Clock:
        return self.tenancy.clock

    @overload
    def session(self, read_only: Literal[False] = False) -> "AbstractAsyncContextManager[WriteSession]": ...
    @overload
    def session(self, read_only: Literal[True]) -> "AbstractAsyncContextManager[ReadSession]": ...
    def session(self, read_only: bool = False) -> "AbstractAsyncContextManager[ReadSession]":
        """A session of the job's tenant, of one transaction; it commits when the block ends without an error.

        The tenant is looked up and admitted anew, so a job that takes long stops at its next session once its tenant
        may do no more, and is run again when it may.
        """
        return self._session(read_only=read_only)

    @asynccontextmanager
    async def _session(self, *, read_only: bool) -> AsyncIterator[ReadSession]:
        async with (
            self.tenancy.scope(self.tenant.id) as present,
            self.tenancy.databases.tenant_session(present, read_only) as session,
        ):
            yield session


class Task(Generic[P]):
    """A function that is run as a job. Called directly, it is that function."""

    def __init__(
        self,
        name: str,
        function: Callable[Concatenate[Job, P], Awaitable[None]],
        *,
        retry: BaseRetryStrategy | None,
        seconds: float | None,
        priority: int,
    ) -> None:
        """Raises TypeError for a function whose arguments could not be named in an envelope."""
        self.name = name
        self.retry = retry
        self.seconds = seconds
        self.priority = priority
        self._function = function
        self._signature = inspect.signature(function)
        self._arguments = _arguments_of(name, function, self._signature)

    def __repr__(self) -> str:
        return f"<Task {self.name}>"

    def __call__(self, job: Job, /, *arguments: P.args, **named: P.kwargs) -> Awaitable[None]:
        return self._function(job, *arguments, **named)

    def pack(self, /, *arguments: P.args, **named: P.kwargs) -> dict[str, Any]:
        """The arguments by their names, as JSON has them.

        Raises TypeError for those that the function would not take, and `JobTooLarge`.
        """
        bound = self._signature.bind(None, *arguments, **named).arguments
        given = {name: value for name, value in bound.items() if name in self._arguments.__struct_fields__}
        try:
            packed = msgspec.to_builtins(given)
            msgspec.convert(packed, self._arguments, strict=False)
        except msgspec.ValidationError as error:
            # The reason names types and the place, never a value.
            raise TypeError(f"{self.name} takes other arguments: {error}") from None
        if len(msgspec.json.encode(packed)) > MAX_ARGUMENT_BYTES:
            raise JobTooLarge(f"The arguments of a job have at most {MAX_ARGUMENT_BYTES} bytes: name the data instead.")
        return dict(packed)

    def unpack(self, packed: Mapping[str, Any]) -> dict[str, Any]:
        """The arguments that `pack` was given. Raises `UnreadableJob` where the function takes others by now."""
        try:
            arguments = msgspec.convert(packed, self._arguments, strict=False)
        except msgspec.ValidationError as error:
            raise UnreadableJob(f"{self.name} takes other arguments: {error}") from None
        return {name: getattr(arguments, name) for name in arguments.__struct_fields__}

    async def run(self, job: Job, arguments: Mapping[str, Any]) -> None:
        """Runs the function with what `unpack` returned."""
        await self._function(job, **arguments)  # type: ignore[call-arg]  # they were read by its own signature


def _arguments_of(name: str, function: Callable[..., Any], signature: inspect.Signature) -> type[msgspec.Struct]:
    if not inspect.iscoroutinefunction(function):
        raise TypeError(f"{name}: a task is an async def")
    types = get_type_hints(function)
    parameters = list(signature.parameters.values())[1:]
    fields: list[tuple[str, Any] | tuple[str, Any, Any]] = []
    for parameter in parameters:
        if parameter.kind not in {parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY}:
            raise TypeError(f"{name}: {parameter.name} has no name of its own in an envelope")
        if parameter.name not in types:
            raise TypeError(f"{name}: {parameter.name} has no type")
        given = (parameter.name, types[parameter.name])
        fields.append(given if parameter.default is parameter.empty else (*given, parameter.default))
    return msgspec.defstruct("Arguments", fields, kw_only=True, forbid_unknown_fields=True)
