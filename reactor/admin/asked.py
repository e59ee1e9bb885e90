"""What a request asks for: ids from its path, numbers from its query, a body from its bytes."""

import base64
from typing import Any, TypeVar
from urllib.parse import unquote_to_bytes

import anyio
import msgspec
from starlette.requests import Request

from reactor.protocol.ids import clean_id
from reactor.protocol.messages import ProtocolError

T = TypeVar("T")

BODY_WITHIN = 10.0
"""Seconds that a body may take to come."""

_LAST = {"Connection": "close"}


class Problem(Exception):
    """A request that is refused, with the status, a stable code and a sentence."""

    def __init__(self, status: int, code: str, message: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(message)
        self.status, self.code, self.message, self.headers = status, code, message, headers


def id_in(request: Request, name: str, limit: int) -> str:
    """An id from the path, where it stands percent-encoded (RFC 3986 section 2.1)."""
    return _clean(request.path_params[name], name, limit)


def room_in_query(request: Request, limit: int) -> str | None:
    """The id of a room from the query, where there is one."""
    value = request.query_params.get("room")
    return None if value is None else _clean(value, "room", limit, decode=False)


def limit_in(request: Request, most: int, usual: int) -> int:
    """How many the answer may hold at most."""
    text = request.query_params.get("limit", str(usual))
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= most):
        raise Problem(400, "bad_request", f"limit takes a whole number from 1 to {most}.")
    return int(text)


def cursor_in(request: Request, kind: type[T]) -> T | None:
    """What a cursor holds, where there is one."""
    text = request.query_params.get("cursor")
    if not text:
        return None
    try:
        return msgspec.json.decode(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)), type=kind)
    except (ValueError, msgspec.MsgspecError):
        raise Problem(400, "bad_cursor", "cursor takes what an answer gave as cursor.") from None


def cursor_of(value: Any) -> str:
    """A cursor that holds a value, as text that may stand in a query."""
    return base64.urlsafe_b64encode(msgspec.json.encode(value)).decode().rstrip("=")


async def body_of(request: Request, kind: type[T], most: int) -> T:
    """The body, read from JSON. `most` is in bytes."""
    body = bytearray()
    try:
        with anyio.fail_after(BODY_WITHIN):
            async for chunk in request.stream():
                body += chunk
                if len(body) > most:
                    raise Problem(413, "too_big", f"the body takes at most {most} bytes.", _LAST)
    except TimeoutError:
        raise Problem(408, "too_slow", f"the body did not come within {BODY_WITHIN:.0f} s.", _LAST) from None
    try:
        bytes(body).decode()
        return msgspec.json.decode(bytes(body), type=kind)
    except (ValueError, RecursionError, msgspec.MsgspecError) as error:
        raise Problem(400, "bad_request", f"the body is not what this takes: {error}.") from None


def _clean(text: str, what: str, limit: int, *, decode: bool = True) -> str:
    try:
        value = unquote_to_bytes(text).decode() if decode else text
        return clean_id(value, what, limit)
    except UnicodeDecodeError:
        raise Problem(400, "bad_id", f"{what} is no UTF-8, percent-encoded.") from None
    except ProtocolError as error:
        raise Problem(400, error.code, f"{error.message}.") from None
