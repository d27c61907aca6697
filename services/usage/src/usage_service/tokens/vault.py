"""Tokens for the values of requests: from memory where they are known, else from the vault, one statement a request.

A request is read with new tokens for the values that this process does not know. Before anything is sent they are put
into the vault; where it has another token for a value, put there by another process, the request is read again with
that one. So equal values have equal tokens whoever takes them in, and no event is acknowledged whose token could be
lost.

What is remembered is asked for again after a minute: a token that was erased is given that long, and then never again.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable
from concurrent.futures import Executor
from copy import deepcopy
from dataclasses import dataclass
from hashlib import blake2b
from typing import Final, TypeVar
from uuid import UUID

from prometheus_client import Counter
from sqlalchemy.exc import SQLAlchemyError

from tenantry import Unavailable
from tenantry.database import Databases
from usage_service.domain.field_rules import TOKEN_PREFIX, FieldRules
from usage_service.tokens.repository import Asked, resolve_tokens

KEPT_SECONDS: Final = 60.0

_REMEMBERED: Final = 100_000
_TRIES: Final = 5

ASKED = Counter("usage_tokens_asked_total", "Values whose token was asked of the vault, or put there")

T = TypeVar("T")
_Key = tuple[str, bytes]
"""Tenant, and a hash of the value's text: the memory of a process holds no values."""


@dataclass(frozen=True, slots=True)
class _Known:
    token: str
    until: float


class TokenVault:
    """The tokens of one process. `clock` is monotonic, in seconds."""

    def __init__(self, databases: Databases, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._databases = databases
        self._clock = clock
        self._known: dict[_Key, _Known] = {}

    def batch(self) -> TokenBatch:
        """The tokens of one request."""
        return TokenBatch(self, self._clock())

    def recall(self, key: _Key) -> _Known | None:
        return self._known.get(key)

    async def resolve(self, asked: dict[_Key, Asked]) -> dict[_Key, str]:
        """The tokens that are durable when this returns; those that are not there are forgotten.

        Raises Unavailable.
        """
        found: dict[_Key, str] = {}
        missing = dict(asked)
        ASKED.inc(len(asked))
        for _ in range(_TRIES):
            try:
                async with self._databases.system_session() as session:
                    tokens = await resolve_tokens(session, sorted(missing.values(), key=lambda each: each[:2]))
            except (SQLAlchemyError, OSError) as error:
                raise Unavailable("Tokens cannot be made or read now; nothing was accepted.") from error
            for key, each in list(missing.items()):
                token = tokens.get((each.tenant_id, each.value_hash))
                if token is not None:
                    found[key] = token
                if token is not None or each.text is None:
                    del missing[key]
            if not missing:
                break
        else:
            raise Unavailable("Tokens are made and erased at the same time; nothing was accepted.")
        self._remember(asked, found)
        return found

    def _remember(self, asked: dict[_Key, Asked], found: dict[_Key, str]) -> None:
        if len(self._known) + len(found) > _REMEMBERED:
            self._known.clear()
        until = self._clock() + KEPT_SECONDS
        for key in asked:
            if key in found:
                self._known[key] = _Known(found[key], until)
            else:
                self._known.pop(key, None)


class TokenBatch:
    """What a request was given: durable tokens, and others until `settle`."""

    def __init__(self, vault: TokenVault, now: float) -> None:
        self._vault = vault
        self._now = now
        self._durable: dict[_Key, str] = {}
        self._given: dict[_Key, Asked] = {}

    def token_of(self, tenant: str, text: str) -> str:
        """The token of a value, the same whenever it is asked for in this request until it is settled."""
        value_hash = blake2b(text.encode(), digest_size=16).digest()
        key = (tenant, value_hash)
        token = self._durable.get(key)
        if token is not None:
            return token
        given = self._given.get(key)
        if given is None:
            known = self._vault.recall(key)
            if known is not None and self._now < known.until:
                self._durable[key] = known.token
                return known.token
            # Of a token that was remembered for too long only the vault may say that it still is one.
            new = known is None
            token = TOKEN_PREFIX + secrets.token_urlsafe(16) if known is None else known.token
            given = self._given[key] = Asked(UUID(tenant), value_hash, token, text if new else None)
        return given.token

    async def settle(self) -> bool:
        """Makes every token durable; False where some values have other ones, and the request must be read again.

        Raises Unavailable, and nothing may be sent then.
        """
        if not self._given:
            return True
        given, self._given = self._given, {}
        found = await self._vault.resolve(given)
        self._durable |= found
        return all(found.get(key) == each.token for key, each in given.items())


class TreatedFields:
    """What becomes of fields of events, with the vault behind it. Without rules everything stays as it is."""

    def __init__(self, rules: FieldRules | None = None, vault: TokenVault | None = None) -> None:
        self._rules = rules
        self._vault = vault

    async def read(
        self, parse: Callable[[FieldRules | None], T], *, keep: bool = True, executor: Executor | None = None
    ) -> T:
        """What `parse` makes of a request by the rules, once the tokens in it are durable; it may be called again.

        It is called in `executor` where there is one. Without `keep` nothing is made durable, and what is made must not
        be kept. Raises Unavailable, and as `parse`.
        """
        if self._rules is None or self._vault is None or not self._rules.tokenises:
            return parse(self._rules) if executor is None else await _run(executor, parse, self._rules)
        tokens = self._vault.batch()
        rules = self._rules.with_tokens(tokens.token_of)
        while True:
            read = parse(rules) if executor is None else await _run(executor, parse, rules)
            if not keep or await tokens.settle():
                return read

    async def treated(self, event_type: str, tenant: str, data: T) -> T:
        """The data of one event as it is to be stored. Raises Unavailable."""

        def parse(rules: FieldRules | None) -> T:
            document = deepcopy(data)
            if rules is not None:
                rules.apply(event_type, tenant, document)
            return document

        return await self.read(parse)


async def _run(executor: Executor, parse: Callable[[FieldRules | None], T], rules: FieldRules | None) -> T:
    return await asyncio.get_running_loop().run_in_executor(executor, parse, rules)
