"""Encodes and decodes messages, in JSON or MessagePack, and explains why a message is invalid. PURE.

A valid message is parsed once, straight into its struct. Only an invalid one is parsed a second time, into
plain values, to find which field is wrong and to which request and room the error belongs.
"""

from collections.abc import Callable
from typing import Any, NoReturn, get_args

import msgspec

from reactor.protocol.ids import clean_id
from reactor.protocol.messages import ErrorCode, Message, ProtocolError, RequestId, ServerMessage
from reactor.protocol.requests import TYPES, Request

_UNREADABLE = (msgspec.MsgspecError, ValueError, RecursionError, OverflowError, TypeError)
"""What msgspec raises for invalid input: wrong types, invalid text, deep nesting, unhashable keys."""

_KINDS: dict[str, type[Message]] = dict(zip(TYPES, get_args(Request), strict=True))

_EXPECTED = {
    "id": "text of at most 128 characters, or a whole number that JavaScript keeps exact",
    "roomId": "text or a whole number",
    "userId": "text or a whole number",
    "username": "text",
    "view": '"members", "count" or "none"',
    "token": "text",
}


class Codec:
    """One encoding of the messages; use the constants `JSON` and `MSGPACK`.

    Attributes:
        name: "json" or "msgpack".
        subprotocol: The WebSocket subprotocol that selects it (RFC 6455 section 1.9).
        binary: Whether it is sent in binary frames.
        encode: Encodes a message.
        between, end: The bytes between two members after `open_members`, and after the last.

    """

    __slots__ = (
        "_anything",
        "_reply",
        "_request",
        "between",
        "binary",
        "encode",
        "end",
        "name",
        "subprotocol",
    )

    def __init__(self, name: str, library: Any, *, binary: bool) -> None:
        self.name = name
        self.subprotocol = f"reactor.{name}"
        self.binary = binary
        self.between, self.end = (b"", b"") if binary else (b",", b"]}")
        self.encode: Callable[[Any], bytes] = library.Encoder().encode
        self._request: Callable[[bytes], Request] = library.Decoder(Request).decode
        self._reply: Callable[[bytes], ServerMessage] = library.Decoder(ServerMessage).decode
        self._anything: Callable[[bytes], Any] = library.Decoder().decode

    def decode(self, payload: bytes) -> Request:
        """Return the request in one whole message.

        Raises:
            ProtocolError: `bad_json`, `bad_message`, `unknown_type`, `bad_id` or `not_utf8`; with the
                request's `id` and room, where they can be read.

        """
        # The parser does not validate text in unknown fields.
        if not self.binary and not payload.isascii():
            _check_utf8(payload)
        try:
            return self._request(payload)
        except _UNREADABLE as error:
            self._explain(payload, error)

    def open_members(self, message: bytes, count: int) -> bytes:
        """Return the beginning of a message with members, which the caller appends, each encoded by `encode`.

        Args:
            message: The message without `members`, encoded: an object of fewer than 15 fields.
            count: The number of members that will follow.

        """
        if not self.binary:
            return message[:-1] + b',"members":['
        # The map gets one more field, with an array 32: https://github.com/msgpack/msgpack/blob/master/spec.md
        return bytes((message[0] + 1,)) + message[1:] + b"\xa7members\xdd" + count.to_bytes(4)

    def decode_reply(self, payload: bytes) -> ServerMessage | None:
        """Return the server's message, or None for a type that only a newer server knows.

        Raises:
            ProtocolError: `bad_json` or `bad_message`: this is not a message of a reactor server.

        """
        try:
            return self._reply(payload)
        except _UNREADABLE as error:
            raw = self._parse(payload)
            kind = raw.get("type")
            if isinstance(kind, str) and kind not in _REPLY_TYPES:
                return None
            raise ProtocolError("bad_message", f"the server's message is invalid: {error}") from error

    def _parse(self, payload: bytes) -> dict[str, Any]:
        try:
            raw = self._anything(payload)
        except RecursionError as error:
            raise self._broken("it nests too deep") from error
        except _UNREADABLE as error:
            raise self._broken(str(error)) from error
        if not isinstance(raw, dict):
            raise ProtocolError("bad_message", 'a message must be an object with a "type"')
        return raw

    def _broken(self, detail: str) -> ProtocolError:
        if self.binary:
            return ProtocolError("bad_message", f"not MessagePack ({detail}): send one map a message")
        return ProtocolError("bad_json", f"not JSON ({detail}): send one object a message")

    def _explain(self, payload: bytes, error: Exception) -> NoReturn:
        raw = self._parse(payload)
        request_id = raw.get("id") if _fits(raw.get("id"), RequestId) else None
        try:
            room_id = clean_id(raw.get("roomId"), "roomId")
        except ProtocolError:
            room_id = None
        fault = _first_fault(raw) or ProtocolError("bad_message", f"not a message ({error})")
        raise ProtocolError(fault.code, fault.message, request_id, room_id) from error


def _check_utf8(payload: bytes) -> None:
    try:
        payload.decode()
    except UnicodeDecodeError as error:
        raise ProtocolError("not_utf8", "text must be UTF-8") from error


def _first_fault(raw: dict[str, Any]) -> ProtocolError | None:
    kind = raw.get("type")
    if not isinstance(kind, str):
        return ProtocolError("bad_message", f'"type" must be text, one of: {", ".join(TYPES)}')
    if kind not in _KINDS:
        return ProtocolError("unknown_type", f'unknown type "{kind[:64]}": use one of {", ".join(TYPES)}')
    for field in msgspec.structs.fields(_KINDS[kind]):
        name = field.encode_name
        expected = _EXPECTED.get(name)
        if name not in raw:
            if field.required:
                return ProtocolError("bad_message", f'{kind} needs "{name}": {expected}')
        elif not _fits(raw[name], field.type):
            code: ErrorCode = "bad_id" if name in ("roomId", "userId") else "bad_message"
            return ProtocolError(code, f'"{name}" of {kind} must be {expected}')
    return None


def _fits(value: Any, type_: Any) -> bool:
    try:
        msgspec.convert(value, type_)
    except _UNREADABLE:
        return False
    return True


_REPLY_TYPES = frozenset(str(kind.__struct_config__.tag) for kind in get_args(ServerMessage))

JSON = Codec("json", msgspec.json, binary=False)
MSGPACK = Codec("msgpack", msgspec.msgpack, binary=True)


def codec_for(subprotocol: str | None) -> Codec:
    """Return the codec of a negotiated subprotocol; JSON where the client asked for none."""
    return MSGPACK if subprotocol == MSGPACK.subprotocol else JSON
