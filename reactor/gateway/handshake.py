"""The opening handshake (RFC 6455 section 4.2), or the plain HTTP answer to whoever wants no socket."""

from collections.abc import Callable
from http import HTTPStatus

from websockets.http11 import Request, Response
from websockets.server import ServerProtocol

from reactor.gateway.framing import at_frame_start
from reactor.gateway.http import text

_BAD_REQUEST = "HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{}"


def shake_hands(parser: ServerProtocol, answer: Callable[[Request], Response | None]) -> bytes | None:
    """Go as far as the bytes allow that the parser was given.

    Args:
        parser: In state CONNECTING; when the client is let in it is OPEN, and has the answer to send.
        answer: Answers a request for anything but the socket, else gives None.

    Returns:
        The answer after which the connection ends; None when the client is let in, or more is to come.

    """
    events, writes = parser.events_received(), parser.data_to_send()
    if not events:
        # websockets has answers for a request that is too long, and says nothing to one that is none.
        return (
            (b"".join(writes) or _bad_request("this is no request: send GET, without a body"))
            if writes
            else None
        )
    request = events[0]
    assert isinstance(request, Request)
    if len(events) > 1 or writes or not at_frame_start(parser):
        # A client waits for the answer before it sends frames (RFC 6455 section 4.1).
        return _bad_request("nothing may follow a request before its answer")
    response = answer(request) or parser.accept(request)
    if response.status_code != 101:
        return response.serialize()
    parser.send_response(response)
    return None


def too_long(limit: int) -> bytes:
    """Answer a request whose head, whole or not yet, is longer than the limit (RFC 6585 section 5)."""
    sentence = f"the head of a request takes at most {limit} bytes"
    return text(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, sentence).serialize()


def _bad_request(sentence: str) -> bytes:
    return _BAD_REQUEST.format(len(sentence), sentence).encode()
