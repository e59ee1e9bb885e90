"""A proxy that the settings do not fit is noticed and reported once."""

from collections.abc import Iterator
from typing import Any

import pytest
from structlog.testing import capture_logs
from websockets.datastructures import Headers

from reactor.gateway.proxy_notices import NOTICE_AFTER, ProxyNotices


class Reported:
    """Notices, and what they have logged."""

    def __init__(self) -> None:
        self.proxies = ProxyNotices()
        self.logs: list[Any] = []

    @property
    def events(self) -> list[tuple[str, str]]:
        return [(line["event"], line["address"]) for line in self.logs]


@pytest.fixture
def reported() -> Iterator[Reported]:
    reported = Reported()
    with capture_logs() as reported.logs:
        yield reported


def headers(**given: str) -> Headers:
    return Headers(
        {"Host": "chat.example"} | {name.replace("_", "-"): value for name, value in given.items()}
    )


def test_a_proxy_that_is_not_trusted_is_reported_once_with_the_setting(reported: Reported) -> None:
    for number in range(3 * NOTICE_AFTER):
        reported.proxies.untrusted("10.0.0.1", headers(X_Forwarded_For=f"203.0.113.{number}"))
    assert reported.events == [("proxy_not_trusted", "10.0.0.1")]
    (line,) = reported.proxies.lines
    assert "set trusted_proxies to 10.0.0.1" in line


@pytest.mark.parametrize("other", [0, 7, NOTICE_AFTER - 1])
def test_clients_that_connect_directly_are_no_proxy(reported: Reported, other: int) -> None:
    for number in range(5 * NOTICE_AFTER):
        forwarded = headers(X_Forwarded_For=f"203.0.113.{number}")
        reported.proxies.untrusted("10.0.0.1", forwarded if number % NOTICE_AFTER != other else headers())
        if number % NOTICE_AFTER == other:
            reported.proxies.untrusted("10.0.0.2", forwarded)
    assert reported.events == []


def test_one_client_that_claims_to_be_forwarded_is_no_proxy(reported: Reported) -> None:
    for _ in range(3 * NOTICE_AFTER):
        reported.proxies.untrusted("10.0.0.1", headers(X_Forwarded_For="203.0.113.1"))
    assert reported.events == []


@pytest.mark.parametrize(
    ("peer", "given"),
    [
        ("10.0.0.1", {}),
        ("127.0.0.1", {}),  # with a public name in Host
        ("127.0.0.1", {"Host": "localhost:8765", "X_Forwarded_For": "unknown"}),
        ("::1", {"Host": "[::1]:8765", "Via": "1.1 proxy"}),
    ],
)
def test_a_proxy_that_names_no_client_is_reported_once(
    reported: Reported, peer: str, given: dict[str, str]
) -> None:
    for _ in range(3 * NOTICE_AFTER):
        reported.proxies.unnamed(peer, headers(**given))
    assert reported.events == [("proxy_names_no_client", peer)]
    assert "X-Forwarded-For" in reported.proxies.lines[0]


@pytest.mark.parametrize("host", ["localhost:8765", "127.0.0.1:8765", "[::1]:8765", "desk", "192.168.1.7:1"])
def test_programs_on_this_machine_are_no_proxy(reported: Reported, host: str) -> None:
    for _ in range(3 * NOTICE_AFTER):
        reported.proxies.unnamed("127.0.0.1", headers(Host=host))
    assert reported.events == []


@pytest.mark.parametrize(("trusted", "connections"), [(True, 1), (False, NOTICE_AFTER)])
def test_a_proxy_that_sends_the_proxy_protocol_is_reported_once(
    reported: Reported, trusted: bool, connections: int
) -> None:
    for _ in range(connections - 1):
        reported.proxies.proxy_protocol("10.0.0.1", trusted=trusted)
    assert reported.events == []
    for _ in range(3):
        reported.proxies.proxy_protocol("10.0.0.1", trusted=trusted)
    assert reported.events == [("proxy_protocol_not_supported", "10.0.0.1")]
    assert "send-proxy" in reported.proxies.lines[0]
