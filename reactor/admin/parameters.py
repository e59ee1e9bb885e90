"""Reads the parameters of a request: ids of the path, values of the query, the body."""

import base64
from typing import Any, TypeVar
from urllib.parse import unquote_to_bytes

import anyio
import msgspec
from starlette.requests import Request

from reactor.protocol.ids import clean_id
from reactor.protocol.messages import ProtocolError

T = TypeVar("T")

BODY_TIMEOUT = 10.0
"""Seconds within which the whole body must arrive."""

_CLOSE = {"Connection": "close"}


class ApiError(Exception):
    """A rejected request: the HTTP status, a stable code, and a sentence for people."""

    def __init__(self, status: int, code: str, message: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(message)
        self.status, self.code, self.message, self.headers = status, code, message, headers


def path_id(request: Request, name: str, limit: int) -> str:
    """An id of the path, percent-decoded (RFC 3986 section 2.1). Raises ApiError."""
    return _checked_id(request.path_params[name], name, limit)


def query_room(request: Request, limit: int) -> str | None:
    """The room id of the query; None if it names none. Raises ApiError."""
    value = request.query_params.get("room")
    return None if value is None else _checked_id(value, "room", limit, decode=False)


def query_limit(request: Request, maximum: int, default: int) -> int:
    """The `limit` of the query. Raises ApiError unless it is from 1 to `maximum`."""
    text = request.query_params.get("limit", str(default))
    # A number of more than 4,300 digits cannot be read.
    if not (text.isascii() and text.isdigit() and len(text) < 20 and 1 <= int(text) <= maximum):
        raise ApiError(400, "bad_request", f"limit takes a whole number from 1 to {maximum}.")
    return int(text)


def query_cursor(request: Request, kind: type[T]) -> T | None:
    """The value in the `cursor` of the query; None if there is none. Raises ApiError."""
    text = request.query_params.get("cursor")
    if not text:
        return None
    try:
        return msgspec.json.decode(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)), type=kind)
    except (ValueError, msgspec.MsgspecError):
        raise ApiError(400, "bad_cursor", "cursor takes the cursor of an earlier response.") from None


def encode_cursor(value: Any) -> str:
    """Write a value as a cursor, in characters that need no escaping in a query."""
    return base64.urlsafe_b64encode(msgspec.json.encode(value)).decode().rstrip("=")


async def read_body(request: Request, kind: type[T], max_size: int) -> T:
    """Decode the JSON body. `max_size` is in bytes. Raises ApiError."""
    body = bytearray()
    try:
        with anyio.fail_after(BODY_TIMEOUT):
            async for chunk in request.stream():
                body += chunk
                if len(body) > max_size:
                    raise ApiError(413, "too_big", f"the body may have at most {max_size} bytes.", _CLOSE)
    except TimeoutError:
        message = f"the body did not arrive within {BODY_TIMEOUT:.0f} s."
        raise ApiError(408, "too_slow", message, _CLOSE) from None
    try:
        bytes(body).decode()
        return msgspec.json.decode(bytes(body), type=kind)
    except (ValueError, RecursionError, msgspec.MsgspecError) as error:
        raise ApiError(400, "bad_request", f"the body does not match the schema: {error}.") from None


def _checked_id(text: str, name: str, limit: int, *, decode: bool = True) -> str:
    try:
        value = unquote_to_bytes(text).decode() if decode else text
        return clean_id(value, name, limit)
    except UnicodeDecodeError:
        raise ApiError(400, "bad_id", f"{name} is not percent-encoded UTF-8.") from None
    except ProtocolError as error:
        raise ApiError(400, error.code, f"{error.message}.") from None
