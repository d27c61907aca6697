"""When API keys were last used: noted where they are accepted, told in batches, and told again where that failed."""

import asyncio
import json
from datetime import timedelta

import httpx
import pytest

from tenantry import Unavailable
from tenantry.identity import Credential, Identifier, KeyUse, new_api_key, secret_hash, told_by
from tenantry.testing import eventually


@pytest.fixture
def use(clock):
    return KeyUse(clock)


class Ears:
    """Whoever is told."""

    def __init__(self):
        self.heard = []
        self.away = False
        self.calls = 0

    async def __call__(self, last_used_at):
        self.calls += 1
        if self.away:
            raise Unavailable
        self.heard.append(dict(last_used_at))


@pytest.fixture
def ears():
    return Ears()


@pytest.fixture
async def telling(use, ears):
    task = asyncio.create_task(use.report(ears, every=0.001))
    yield task
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_a_key_is_told_once_however_often_it_was_used(use, ears, clock):
    use.note("a")
    clock.advance(timedelta(seconds=1))
    use.note("a")
    last = clock.now()
    use.note("b")
    task = asyncio.create_task(use.report(ears, every=0.001))
    await eventually(lambda: bool(ears.heard))
    assert ears.heard == [{"a": last, "b": last}]
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert len(ears.heard) == 1


async def test_the_end_tells_what_is_left(use, ears):
    task = asyncio.create_task(use.report(ears, every=1000))
    await asyncio.sleep(0)
    use.note("a")
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert [list(each) for each in ears.heard] == [["a"]]


async def test_an_end_that_nobody_hears_is_an_end(use, monkeypatch):
    monkeypatch.setattr("tenantry.identity._key_use._AT_THE_END", 0.01)

    async def never(_):
        await asyncio.Event().wait()

    task = asyncio.create_task(use.report(never, every=1000))
    await asyncio.sleep(0)
    use.note("a")
    task.cancel()
    async with asyncio.timeout(5):
        assert isinstance((await asyncio.gather(task, return_exceptions=True))[0], asyncio.CancelledError)


async def test_what_was_not_taken_is_told_again_with_what_is_newer(use, ears, clock, telling):
    ears.away = True
    first = clock.now()
    use.note("a")
    use.note("b")
    await eventually(lambda: ears.calls >= 2)
    clock.advance(timedelta(seconds=1))
    use.note("a")
    ears.away = False
    await eventually(lambda: bool(ears.heard))
    assert ears.heard[0] == {"a": clock.now(), "b": first}


async def test_a_use_while_it_is_told_is_newer_than_what_is_put_back(use, clock):
    heard = []

    async def tell(last_used_at):
        heard.append(dict(last_used_at))
        if len(heard) == 1:
            clock.advance(timedelta(seconds=1))
            use.note("a")
            raise Unavailable

    use.note("a")
    task = asyncio.create_task(use.report(tell, every=0.001))
    await eventually(lambda: len(heard) >= 2)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert heard[1] == {"a": clock.now()}
    assert heard[0]["a"] < clock.now()


async def test_many_keys_are_told_in_parts(use, ears, telling):
    for number in range(4_500):
        use.note(str(number))
    await eventually(lambda: sum(map(len, ears.heard)) == 4_500)
    assert max(map(len, ears.heard)) <= 2_000


async def test_the_tenant_service_is_told_by_http(clock):
    asked = []
    status = 204

    def answer(request):
        asked.append((request.url.path, json.loads(request.content)))
        return httpx.Response(status)

    async with httpx.AsyncClient(transport=httpx.MockTransport(answer), base_url="http://tenant") as client:
        tell = told_by(client)
        await tell({"a": clock.now()})
        assert asked == [("/v1/api-keys/used", {"last_used_at": {"a": clock.now().isoformat(timespec="seconds")}})]
        for status in (401, 403, 429, 500, 503):  # noqa: B007 - read by `answer`
            with pytest.raises(Unavailable):
                await tell({"a": clock.now()})
        status = 422
        await tell({"a": clock.now()})


async def test_only_keys_that_are_accepted_are_noted(directory, issuer, verifier, credentials, use, ears):
    known = new_api_key()
    credentials.upsert(
        Credential(
            id="key-1",
            kind="api_key",
            hash=secret_hash(known),
            tenant_id=None,
            subject="m",
            scopes=frozenset({"platform"}),
        )
    )
    identifier = Identifier(directory=directory, tokens=verifier, credentials=credentials, key_use=use)
    scope = {"type": "http", "method": "GET", "path": "/", "query_string": b""}
    for name, value in ((b"authorization", f"Bearer {known}"), (b"x-api-key", known)):
        identifier.identify({**scope, "headers": [(b"host", b"h"), (name, value.encode())]})
    with pytest.raises(Exception, match="unknown, revoked"):
        identifier.identify({**scope, "headers": [(b"host", b"h"), (b"x-api-key", new_api_key().encode())]})
    identifier.identify(
        {**scope, "headers": [(b"host", b"h"), (b"authorization", f"Bearer {issuer.token()}".encode())]}
    )
    task = asyncio.create_task(use.report(ears, every=0.001))
    await eventually(lambda: bool(ears.heard))
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert [list(each) for each in ears.heard] == [["key-1"]]
