"""The handshake's fast path accepts only what the parser accepts, with the same response."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.http11 import Request, Response
from websockets.server import ServerProtocol

from reactor.gateway.context import _select_subprotocol, choose_subprotocol
from reactor.gateway.handshake import FastHandshake, read_fast
from tests.support.gateway import Raw, bystander, request, serving

USUAL = {
    "Host": "example.org",
    "Upgrade": "websocket",
    "Connection": "Upgrade",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
    "Sec-WebSocket-Version": "13",
}
BROWSER = USUAL | {
    "User-Agent": "Mozilla/5.0 (X11; Linux x86_64) Gecko/20100101",
    "Connection": "keep-alive, Upgrade",
    "Origin": "https://example.org",
    "Cookie": "a=b; c=d",
    "Sec-WebSocket-Extensions": "permessage-deflate; client_max_window_bits",
}
UNUSUAL = {
    "another path": (USUAL, "/other"),
    "no key": ({name: value for name, value in USUAL.items() if "Key" not in name}, "/ws"),
    "short key": (USUAL | {"Sec-WebSocket-Key": "dGhlIHNhbXBsZQ=="}, "/ws"),
    "old version": (USUAL | {"Sec-WebSocket-Version": "8"}, "/ws"),
    "a body": (USUAL | {"Content-Length": "3"}, "/ws"),
    "no upgrade": (USUAL | {"Upgrade": "h2c"}, "/ws"),
    "connection not upgraded": (USUAL | {"Connection": "keep-alive"}, "/ws"),
    "broken subprotocols": (USUAL | {"Sec-WebSocket-Protocol": "a,,b c"}, "/ws"),
    "a long header": (USUAL | {"X-Long": "y" * 9000}, "/ws"),
    "a control character": (USUAL | {"X-Odd": "\x01"}, "/ws"),
    "key and version in one": (USUAL | {"X": "y\nSec-WebSocket-Version: 13"}, "/ws"),
}


def request_of(headers: dict[str, str], path: str = "/ws") -> bytes:
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"GET {path} HTTP/1.1\r\n{lines}\r\n".encode("latin-1")


def by_fast_path(head: bytes) -> FastHandshake | None:
    return read_fast(head, choose_subprotocol, extensions=False)


def by_parser(head: bytes) -> tuple[Request, Response, ServerProtocol] | None:
    parser = ServerProtocol(select_subprotocol=_select_subprotocol)
    parser.receive_data(head)
    events = parser.events_received()
    if not events or parser.data_to_send():
        return None
    found = events[0]
    assert isinstance(found, Request)
    response = parser.accept(found)
    return (found, response, parser) if response.status_code == 101 else None


def accepted_equally(head: bytes) -> bool:
    """Return whether the fast path accepts a request; assert that the parser then gives the same response."""
    fast, slow = by_fast_path(head), by_parser(head)
    if fast is None:
        return False
    assert slow is not None
    found, response, parser = slow
    assert (fast.request.path, list(fast.request.headers.raw_items())) == (
        found.path, list(found.headers.raw_items())
    )  # fmt: skip
    assert fast.subprotocol == parser.subprotocol
    headers = dict(line.split(": ", 1) for line in fast.response.decode().split("\r\n")[1:-2])
    assert headers == {name: value for name, value in response.headers.raw_items() if name != "Date"}
    assert fast.response.startswith(b"HTTP/1.1 101 Switching Protocols\r\n")
    return True


@pytest.mark.parametrize("headers", [USUAL, BROWSER], ids=["a program", "a browser"])
@pytest.mark.parametrize("offered", [None, "reactor.msgpack", "chat, reactor.json", "chat"])
def test_usual_requests_take_the_fast_path(headers: dict[str, str], offered: str | None) -> None:
    assert accepted_equally(
        request_of(headers | ({"Sec-WebSocket-Protocol": offered} if offered else {}), "/ws?token=x")
    )


@pytest.mark.parametrize(("headers", "path"), UNUSUAL.values(), ids=UNUSUAL)
def test_unusual_requests_are_left_to_the_parser(headers: dict[str, str], path: str) -> None:
    assert by_fast_path(request_of(headers, path)) is None


def test_partial_requests_trailing_data_and_repeated_headers_are_left_to_the_parser() -> None:
    head = request_of(USUAL)
    assert all(by_fast_path(head[:length]) is None for length in range(len(head)))
    assert by_fast_path(head + b"\x81") is None
    assert by_fast_path(head[:-2] + b"Upgrade: websocket\r\n\r\n") is None
    assert read_fast(request_of(BROWSER), choose_subprotocol, extensions=True) is None


NAMES = [*BROWSER, "Sec-WebSocket-Protocol", "Content-Length", "Transfer-Encoding", "X-Other", "upgrade"]
VALUES = [
    *BROWSER.values(),
    "reactor.json, chat",
    "reactor.json,,chat",
    "0",
    "5",
    "chunked",
    "Upgrade ",
    "\ttab",
]


@given(
    st.lists(st.tuples(st.sampled_from(NAMES), st.sampled_from(VALUES) | st.text(max_size=8)), max_size=3),
    st.lists(st.tuples(st.integers(0, 300), st.binary(max_size=2)), max_size=2),
)
def test_the_fast_path_accepts_only_what_the_parser_accepts_with_the_same_response(
    changes: Sequence[tuple[str, str]], damage: Sequence[tuple[int, bytes]]
) -> None:
    try:
        head = request_of(BROWSER | dict(changes))
    except UnicodeEncodeError:
        return
    for position, piece in damage:
        head = head[:position] + piece + head[position + len(piece) :]
    accepted_equally(head)


async def test_both_paths_open_the_connection() -> None:
    async with serving() as served, bystander(served):
        for pieces in ([request()], [request()[:20], request()[20:]]):
            async with await served.raw(handshake=False) as client:
                await _opens(client, pieces)


async def _opens(client: Raw, pieces: Sequence[bytes]) -> None:
    for piece in pieces:
        client.write(piece)
        await client.writer.drain()
    head = await client.reader.readuntil(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 101 ")
