"""The keys of trusted issuers: fetched beside the requests, from addresses that are configured, never by a token."""

import asyncio
import random
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final

import httpx
import msgspec
import structlog
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, RSAKey
from prometheus_client import Counter

from tenantry._clock import Clock, SystemClock
from tenantry._errors import Unavailable
from tenantry.identity._claims import InvalidToken
from tenantry.identity._issuers import IssuerRegistry, TrustedIssuer, check_url

log = structlog.get_logger(__name__)

REFRESH_SECONDS: Final = 600.0
MAX_AGE_SECONDS: Final = 86_400.0
# A stranger may write any `kid` into a token: that alone must not make us ask the issuer more often than this.
COOLDOWN_SECONDS: Final = 10.0
TIMEOUT_SECONDS: Final = 5.0
MAX_BYTES: Final = 256 * 1024

FETCHES: Final = Counter("issuer_key_fetches_total", "Attempts at the keys of trusted issuers", ["issuer", "outcome"])

_RETRY_SECONDS: Final = (1.0, 60.0)
_RECONCILE_SECONDS: Final = 5.0
_MIN_RSA_BITS: Final = 2048
_MAX_KID_LENGTH: Final = 256
_CURVES: Final = {"P-256": "ES256", "P-384": "ES384", "P-521": "ES512"}

Key = ECKey | RSAKey


class KeysUnusable(Exception):
    """What the issuer has answered is no set of keys. The keys that are known stay in use."""


class KeysUnknown(Unavailable):
    """The issuer's keys are not known, or not any more; they are being asked for."""

    type = "issuer-keys-unavailable"
    title = "The keys of the token's issuer are not known at the moment"


class IssuerKeys:
    """The keys of one issuer. `run` fetches, `find` only looks."""

    def __init__(
        self,
        issuer: TrustedIssuer,
        client: httpx.AsyncClient,
        clock: Clock,
        *,
        refresh_seconds: float = REFRESH_SECONDS,
        max_age_seconds: float = MAX_AGE_SECONDS,
        cooldown_seconds: float = COOLDOWN_SECONDS,
        timeout_seconds: float = TIMEOUT_SECONDS,
    ) -> None:
        self.issuer = issuer
        self.version = 0
        self._client = client
        self._clock = clock
        self._refresh_seconds = refresh_seconds
        self._max_age_seconds = max_age_seconds
        self._cooldown_seconds = cooldown_seconds
        self._timeout_seconds = timeout_seconds
        self._keys: dict[tuple[str, str], Key] = {}
        self._fetched_at: float | None = None
        self._asked_at = float("-inf")
        self._wanted = asyncio.Event()

    @property
    def ready(self) -> bool:
        """Whether its keys have been known once."""
        return self._fetched_at is not None

    @property
    def is_usable(self) -> bool:
        """Whether its keys are known, and not for too long without having been read again."""
        return self._fetched_at is not None and self._now() - self._fetched_at <= self._max_age_seconds

    def find(self, kid: object, algorithm: str) -> Key:
        """The key with this id, for this algorithm. Asks for the keys, beside the request, where there is none.

        Raises `KeysUnknown` (503) where they are not known, or are about to be read again for this key's sake;
        `InvalidToken` where the issuer has no such key.
        """
        if not self.is_usable:
            self._wanted.set()
            raise KeysUnknown("The keys of the token's issuer cannot be read at the moment; try again.")
        key = self._keys.get((kid, algorithm)) if isinstance(kid, str) else None
        if key is not None:
            return key
        if _is_plausible(kid) and self._now() - self._asked_at >= self._cooldown_seconds:
            self._wanted.set()
            raise KeysUnknown("The token is signed with a key that is not known yet; try again.")
        raise InvalidToken("The token is signed with a key that the issuer has not published (header kid).")

    async def run(self) -> None:
        """Fetches now, by age and when somebody needs it, with back-off while the issuer is away; until cancelled."""
        delay, longest = _RETRY_SECONDS
        while True:
            self._wanted.clear()
            try:
                await self.fetch()
            except (httpx.HTTPError, TimeoutError, ValueError, KeysUnusable) as error:
                FETCHES.labels(self.issuer.name, "failed").inc()
                log.warning("issuer_keys_not_read", issuer=self.issuer.name, error=repr(error))
                await asyncio.sleep(delay * random.uniform(0.5, 1.0))  # noqa: S311 - spreads replicas, hides nothing
                delay = min(delay * 2, longest)
                continue
            FETCHES.labels(self.issuer.name, "ok").inc()
            delay = _RETRY_SECONDS[0]
            try:
                async with asyncio.timeout(self._refresh_seconds * random.uniform(0.8, 1.0)):  # noqa: S311 - as above
                    await self._wanted.wait()
            except TimeoutError:
                continue

    async def fetch(self) -> None:
        """Reads the keys once. Raises httpx.HTTPError, TimeoutError, KeysUnusable, ValueError; changes nothing then."""
        self._asked_at = self._now()
        async with asyncio.timeout(self._timeout_seconds):
            jwks = await self._get_json(await self._jwks_uri())
        entries = jwks.get("keys")
        if not isinstance(entries, list):
            raise KeysUnusable("there is no list of keys")
        keys = _usable(entries, self.issuer.algorithms)
        # No keys at all is how an issuer withdraws them; keys that are all of no use are a mistake.
        if entries and not keys:
            raise KeysUnusable("none of its keys can be used with the algorithms that are configured")
        if keys.keys() != self._keys.keys() or any(_differ(keys[name], self._keys[name]) for name in keys):
            self._keys = keys
            self.version += 1
        self._fetched_at = self._now()

    async def _jwks_uri(self) -> str:
        if self.issuer.jwks_uri is not None:
            return self.issuer.jwks_uri
        document = await self._get_json(self.issuer.discovery_url)
        if document.get("issuer") != self.issuer.issuer:  # RFC 8414, 3.3
            raise KeysUnusable("the discovery document is another issuer's")
        uri = document.get("jwks_uri")
        if not isinstance(uri, str):
            raise KeysUnusable("the discovery document names no keys")
        return check_url(uri)

    async def _get_json(self, url: str) -> dict[str, Any]:
        async with self._client.stream("GET", url, headers={"Accept": "application/json"}) as response:
            if response.status_code != httpx.codes.OK:
                raise KeysUnusable(f"{url} answers {response.status_code}")
            body = bytearray()
            async for part in response.aiter_bytes():
                body += part
                if len(body) > MAX_BYTES:
                    raise KeysUnusable(f"{url} answers more than {MAX_BYTES} bytes")
        try:
            return msgspec.json.decode(body, type=dict[str, Any])
        except msgspec.MsgspecError as error:
            raise KeysUnusable(f"{url} does not answer a JSON object") from error

    def _now(self) -> float:
        return self._clock.now().timestamp()


class IssuerKeyring:
    """The keys of all trusted issuers of a registry."""

    def __init__(self, registry: IssuerRegistry, *, clock: Clock | None = None, **options: float) -> None:
        """`options` are those of `IssuerKeys`."""
        self._registry = registry
        self._clock = clock or SystemClock()
        self._options = options
        self._client: httpx.AsyncClient | None = None
        self._keys: dict[str, IssuerKeys] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}

    @property
    def ready(self) -> bool:
        """Whether the keys of every issuer of the platform have been known once; a tenant's own may be away."""
        return all(self.of(issuer).ready for issuer in self._registry if issuer.bound_to is None)

    def of(self, issuer: TrustedIssuer) -> IssuerKeys:
        """The keys of one issuer, which nobody fetches outside of `run`."""
        known = self._keys.get(issuer.issuer)
        if known is None or known.issuer != issuer:
            if self._client is None:
                self._client = httpx.AsyncClient(follow_redirects=False, timeout=TIMEOUT_SECONDS)
            known = self._keys[issuer.issuer] = IssuerKeys(issuer, self._client, self._clock, **self._options)
        return known

    @asynccontextmanager
    async def run(self) -> AsyncIterator[None]:
        """Fetches while the block lasts, for issuers that are added meanwhile too."""
        following = asyncio.create_task(self._follow())
        try:
            yield
        finally:
            tasks = [following, *self._tasks.values()]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            if self._client is not None:
                await self._client.aclose()

    async def _follow(self) -> None:
        version: int | None = None
        while True:
            if version != self._registry.version:
                version = self._registry.version
                self._reconcile({issuer.issuer: self.of(issuer) for issuer in self._registry})
            await asyncio.sleep(_RECONCILE_SECONDS)

    def _reconcile(self, wanted: Mapping[str, IssuerKeys]) -> None:
        for name in [name for name in self._tasks if wanted.get(name) is not self._keys.get(name)]:
            self._tasks.pop(name).cancel()
        for name in self._keys.keys() - wanted.keys():
            del self._keys[name]
        for name, keys in wanted.items():
            if name not in self._tasks:
                self._tasks[name] = asyncio.create_task(keys.run(), name=f"issuer keys {keys.issuer.name}")


def _is_plausible(kid: object) -> bool:
    return isinstance(kid, str) and 0 < len(kid) <= _MAX_KID_LENGTH and kid.isascii() and kid.isprintable()


def _usable(entries: Iterable[object], algorithms: Iterable[str]) -> dict[tuple[str, str], Key]:
    """The public signing keys among `entries` by id and algorithm; of two with the same, the first."""
    keys: dict[tuple[str, str], Key] = {}
    for entry in entries:
        if not isinstance(entry, dict) or not _is_plausible(entry.get("kid")) or entry.get("use", "sig") != "sig":
            continue
        key, possible = _import(entry)
        if key is None:
            continue
        for algorithm in algorithms:
            if algorithm in possible and entry.get("alg", algorithm) == algorithm:
                keys.setdefault((entry["kid"], algorithm), key)
    return keys


def _import(jwk: Mapping[str, Any]) -> tuple[Key | None, frozenset[str]]:
    # Only public members are taken over: neither a private part nor a symmetric key can ever come in here.
    try:
        if jwk.get("kty") == "RSA":
            rsa = RSAKey.import_key({"kty": "RSA", "n": jwk["n"], "e": jwk["e"]})
            if rsa.raw_value.key_size >= _MIN_RSA_BITS:
                return rsa, frozenset({"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"})
        elif jwk.get("kty") == "EC" and jwk.get("crv") in _CURVES:
            ec = ECKey.import_key({"kty": "EC", "crv": jwk["crv"], "x": jwk["x"], "y": jwk["y"]})
            return ec, frozenset({_CURVES[jwk["crv"]]})
    except (KeyError, ValueError, TypeError, JoseError):
        pass
    return None, frozenset()


def _differ(one: Key, other: Key) -> bool:
    return one.thumbprint() != other.thumbprint()
