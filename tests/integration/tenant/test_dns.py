"""`DnsResolver` against a name server on a real socket, with every answer that a name server may give."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import cast

import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import dns.rrset
import pytest

from tenant_service.domains import resolver as resolver_module
from tenant_service.domains.resolver import DnsResolver, ResolverUnavailable

Answer = Callable[[dns.message.Message], dns.message.Message | None]


class NameServer(asyncio.DatagramProtocol):
    """Answers over UDP, and over TCP where the answer says that it was cut."""

    def __init__(self) -> None:
        self.answer: Answer = dns.message.make_response
        self.over_tcp: Answer = dns.message.make_response
        self.asked: list[str] = []
        self.transport: asyncio.DatagramTransport | None = None
        self.port = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.DatagramTransport", transport)
        self.port = transport.get_extra_info("sockname")[1]

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        query = dns.message.from_wire(data)
        self.asked.append(str(query.question[0].name))
        response = self.answer(query)
        if response is not None and self.transport is not None:
            self.transport.sendto(response.to_wire(), addr)

    async def serve_stream(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        length = int.from_bytes(await reader.readexactly(2))
        response = self.over_tcp(dns.message.from_wire(await reader.readexactly(length)))
        assert response is not None
        wire = response.to_wire()
        writer.write(len(wire).to_bytes(2) + wire)
        await writer.drain()
        writer.close()


def records(*texts: str) -> Callable[[dns.message.Message], dns.message.Message]:
    def answer(query: dns.message.Message) -> dns.message.Message:
        response = dns.message.make_response(query)
        response.answer.append(dns.rrset.from_text(query.question[0].name, 60, "IN", "TXT", *texts))
        return response

    return answer


def code(rcode: dns.rcode.Rcode) -> Answer:
    def answer(query: dns.message.Message) -> dns.message.Message:
        response = dns.message.make_response(query)
        response.set_rcode(rcode)
        return response

    return answer


@pytest.fixture
async def server() -> AsyncIterator[NameServer]:
    loop = asyncio.get_running_loop()
    while True:
        transport, server = await loop.create_datagram_endpoint(NameServer, local_addr=("127.0.0.1", 0))
        try:
            stream = await asyncio.start_server(server.serve_stream, "127.0.0.1", server.port)
            break
        except OSError:  # free for datagrams, taken for streams
            transport.close()
    yield server
    transport.close()
    stream.close()


@pytest.fixture
def resolver(server: NameServer, monkeypatch: pytest.MonkeyPatch) -> DnsResolver:
    monkeypatch.setattr(resolver_module, "LIFETIME_SECONDS", 0.6)
    monkeypatch.setattr(resolver_module, "TIMEOUT_SECONDS", 0.2)
    return DnsResolver([f"127.0.0.1:{server.port}"])


async def test_records_are_read_whole_and_each_time_anew(server, resolver):
    server.answer = records('"tenantry-verify=" "abc"', '"other"')
    assert sorted(await resolver.txt("_tenantry.acme.example")) == ["other", "tenantry-verify=abc"]
    server.answer = records('"changed"')
    assert await resolver.txt("_tenantry.acme.example") == ["changed"]
    # No search domain of the machine is put behind it.
    assert set(server.asked) == {"_tenantry.acme.example."}


async def test_no_such_name_and_no_such_record_are_no_records(server, resolver):
    server.answer = code(dns.rcode.NXDOMAIN)
    assert await resolver.txt("gone.example") == []
    server.answer = dns.message.make_response
    assert await resolver.txt("bare.example") == []


@pytest.mark.parametrize("rcode", [dns.rcode.SERVFAIL, dns.rcode.REFUSED])
async def test_a_server_that_fails_proves_nothing(server, resolver, rcode):
    server.answer = code(rcode)
    with pytest.raises(ResolverUnavailable, match=r"broken\.example"):
        await resolver.txt("broken.example")


async def test_a_server_that_is_silent_is_given_up(server, resolver):
    server.answer = lambda _query: None
    async with asyncio.timeout(5):
        with pytest.raises(ResolverUnavailable):
            await resolver.txt("silent.example")


async def test_an_answer_that_was_cut_is_asked_for_again_over_tcp(server, resolver):
    def cut(query: dns.message.Message) -> dns.message.Message:
        response = dns.message.make_response(query)
        response.flags |= dns.flags.TC
        return response

    server.answer, server.over_tcp = cut, records(*(f'"record {number}"' for number in range(40)))
    assert len(await resolver.txt("many.example")) == 40


async def test_an_answer_to_another_question_is_not_believed(server, resolver):
    def forged(query: dns.message.Message) -> dns.message.Message:
        response = records('"tenantry-verify=forged"')(query)
        response.id = query.id ^ 1
        return response

    server.answer = forged
    with pytest.raises(ResolverUnavailable):
        await resolver.txt("forged.example")


def test_servers_are_addresses_with_or_without_a_port():
    given = ["192.0.2.1", "192.0.2.1:5353", "2001:db8::1", "[2001:db8::1]:5353"]
    assert [(each.address, each.port) for each in DnsResolver(given)._servers] == [
        ("192.0.2.1", 53), ("192.0.2.1", 5353), ("2001:db8::1", 53), ("2001:db8::1", 5353)
    ]  # fmt: skip
    for wrong in ("", "dns.example", "192.0.2.1:port", "192.0.2.1:99999"):
        with pytest.raises(ValueError):  # noqa: PT011 - whatever it says of it
            DnsResolver([wrong])
