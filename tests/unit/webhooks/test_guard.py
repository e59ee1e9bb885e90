"""What a webhook may not reach: the network that the server stands in."""

import socket
from typing import Any

import pytest

from reactor.settings import Settings
from reactor.webhooks.endpoint import Endpoint
from reactor.webhooks.guard import is_public
from tests.system.webhooks.receiver import SECRET, Receiver

PRIVATE = [
    "127.0.0.1", "127.9.9.9", "10.0.0.1", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1",
    "0.0.0.0", "224.0.0.1", "255.255.255.255", "198.18.0.1", "::1", "::", "fe80::1%eth0", "fc00::1",
    "::ffff:127.0.0.1", "::ffff:169.254.169.254", "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "2002:7f00:1::",
    "2001:db8::1", "ff02::1",
]  # fmt: skip
KEYS = Settings(webhook_secrets=SECRET).webhook_secrets  # type: ignore[arg-type]


@pytest.mark.parametrize("address", PRIVATE)
def test_what_is_not_the_public_internet_is_private(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize("address", ["8.8.8.8", "2606:4700:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"])
def test_what_is_public_is_public(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]", "0x7f.1", "2130706433", "127.1"])
async def test_however_loopback_is_written_it_is_not_connected_to(host: str) -> None:
    async with Receiver.listening() as receiver:
        async with Endpoint(f"http://{host}:{receiver.port}/hooks", KEYS, private=False) as endpoint:
            answer = await endpoint.post("msg_1", b"{}")
        assert not answer.delivered
        assert "no public address" in answer.why or "does not resolve" in answer.why
        assert receiver.sockets == 0


async def test_what_was_looked_at_is_what_is_connected_to(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that is public at the first look and private at the second (DNS rebinding)."""
    looks: list[str] = []

    async def getaddrinfo(host: str, port: int, **_options: Any) -> list[Any]:
        looks.append(host)
        address = "127.0.0.1" if len(looks) > 1 else "192.0.0.9"  # RFC 7723: global, and nobody answers there
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))]

    monkeypatch.setattr("reactor.webhooks.guard.anyio.getaddrinfo", getaddrinfo)
    monkeypatch.setattr("reactor.webhooks.endpoint.TIMEOUT", 0.5)
    async with Receiver.listening() as receiver:
        async with Endpoint(f"http://rebinding.test:{receiver.port}/hooks", KEYS, private=False) as endpoint:
            assert not (await endpoint.post("msg_1", b"{}")).delivered
        assert looks == ["rebinding.test"]
        assert receiver.sockets == 0
