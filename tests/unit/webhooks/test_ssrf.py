"""A webhook cannot reach the network of the server itself (SSRF)."""

import socket
from typing import Any

import pytest

from reactor.settings import Settings
from reactor.webhooks.endpoint import Endpoint
from reactor.webhooks.ssrf import is_public
from tests.system.webhooks.receiver import SECRET, Receiver

PRIVATE = [
    "127.0.0.1", "127.9.9.9", "10.0.0.1", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1",
    "0.0.0.0", "224.0.0.1", "255.255.255.255", "198.18.0.1", "::1", "::", "fe80::1%eth0", "fc00::1",
    "::ffff:127.0.0.1", "::ffff:169.254.169.254", "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "2002:7f00:1::",
    "2001:db8::1", "ff02::1", "ff0e::1", "2002:808:808::1", "2001:0:808:808::1", "2001:20::1", "2001:10::1",
    "3fff::1", "5f00::1", "100::1", "4000::1", "200::1", "fec0::1", "64:ff9b:1::1", "::8.8.8.8", "240.0.0.1",
]  # fmt: skip
KEYS = Settings(webhook_secrets=SECRET).webhook_secrets  # type: ignore[arg-type]


@pytest.mark.parametrize("address", PRIVATE)
def test_an_address_outside_the_public_internet_is_not_public(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize("address", ["8.8.8.8", "2606:4700:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"])
def test_a_public_address_is_public(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]", "0x7f.1", "2130706433", "127.1"])
async def test_loopback_is_refused_in_every_notation(host: str) -> None:
    async with Receiver.listening() as receiver:
        async with Endpoint(f"http://{host}:{receiver.port}/hooks", KEYS, private=False) as endpoint:
            result = await endpoint.post("msg_1", b"{}")
        assert result.outcome == "failed"
        assert "no public address" in result.error or "does not resolve" in result.error
        assert receiver.connections == 0


async def test_the_address_that_was_checked_is_the_one_connected_to(monkeypatch: pytest.MonkeyPatch) -> None:
    """The name resolves to a public address first and to a private one then (DNS rebinding)."""
    lookups: list[str] = []

    async def getaddrinfo(host: str, port: int, **_options: Any) -> list[Any]:
        lookups.append(host)
        # 192.0.0.9 is global (RFC 7723), and nothing answers there.
        address = "127.0.0.1" if len(lookups) > 1 else "192.0.0.9"
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))]

    monkeypatch.setattr("reactor.webhooks.ssrf.anyio.getaddrinfo", getaddrinfo)
    monkeypatch.setattr("reactor.webhooks.endpoint.TIMEOUT", 0.5)
    async with Receiver.listening() as receiver:
        async with Endpoint(f"http://rebinding.test:{receiver.port}/hooks", KEYS, private=False) as endpoint:
            assert (await endpoint.post("msg_1", b"{}")).outcome != "delivered"
        assert lookups == ["rebinding.test"]
        assert receiver.connections == 0
