"""Encodes and decodes messages, in JSON or MessagePack, and explains why a message is invalid. PURE.

A valid message is parsed once, straight into its struct. Only an invalid one is parsed a second time, into
plain values, to find which field is wrong and to which request and room the error belongs.
"""

import re
from collections.abc import Callable
from typing import Any, NoReturn, cast, get_args

import msgspec
from msgspec import UNSET, UnsetType

from reactor.protocol.data import json_float, json_of, value_of
from reactor.protocol.ids import clean_id
from reactor.protocol.limits import Limits
from reactor.protocol.messages import ErrorCode, Message, ProtocolError, RequestId, ServerMessage
from reactor.protocol.requests import TYPES, AnyId, Heartbeat, LeaveRoom, Request
from reactor.protocol.value_count import count_in_json, count_in_msgpack, has_lists_as_keys, has_many_lists

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
    "data": "any JSON",
    "to": "a list of user ids",
    "roomIds": "a list of room ids, each text or a whole number",
    "userIds": "a list of user ids",
    "limit": "a whole number",
    "cursor": "text",
    "resume": "an object with epoch (text of at most 64 characters), version and joinedAt (whole numbers), "
    "and members (a whole number) where diffs are understood",
}


_EXPECTED_IN = {("room:watch", "view"): '"members" or "count"'}
"""By message and field: what is expected where it differs from the same field of other messages."""

_MAP_16 = 0xDE
_NOT_AN_OBJECT = 'a message must be an object with a "type"'
_LISTS_AS_KEYS = "a map of the message has lists as keys: use text"
_SMALL = 4096  # bytes of a message that is decoded at once: what it can hold takes less than 400 KiB
_MAX_DATA = Limits().max_data
_OTHER_VALUES = 64  # keys and values of a message beside `data` and `userIds`
_MAX_PEOPLE = 1000  # ids in `userIds`


class _Outline(msgspec.Struct, rename="camel"):
    """The ids of a message as bytes; the decoder checks the rest of it, and builds nothing."""

    id: msgspec.Raw | UnsetType = UNSET
    room_id: msgspec.Raw | UnsetType = UNSET


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
        "_decode_as",
        "_exempt",
        "_outline",
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
        self._decode_as: Callable[..., Any] = library.decode
        self.between, self.end = (b"", b"") if binary else (b",", b"]}")
        self.encode: Callable[[Any], bytes] = library.Encoder(enc_hook=value_of if binary else json_of).encode
        options = {} if binary else {"float_hook": json_float}
        self._request: Callable[[bytes], Request] = library.Decoder(Request, **options).decode
        self._reply: Callable[[bytes], ServerMessage] = library.Decoder(ServerMessage, **options).decode
        self._anything: Callable[[bytes], Any] = library.Decoder(**options).decode
        self._exempt: Callable[[bytes], Any] = library.Decoder(Heartbeat | LeaveRoom).decode
        self._outline: Callable[[bytes], _Outline] = library.Decoder(_Outline).decode

    def decode(self, payload: bytes, max_data: int = _MAX_DATA) -> Request:
        """Return the request in one whole message.

        Args:
            payload: The message.
            max_data: Most bytes of a member's data as JSON: no objects are built of more values than fit.

        Raises:
            ProtocolError: `bad_json`, `bad_message`, `unknown_type`, `bad_id`, `data_too_big` or `not_utf8`;
                with the request's `id` and room, where they can be read.

        """
        many_lists = self.binary and has_many_lists(payload)
        if len(payload) > _SMALL or many_lists:
            # The checks take a millisecond, and these are sent by those, too, who have spent too much.
            exempt = self._decode_exempt(payload)
            if exempt is not None:
                return exempt
        if len(payload) > _SMALL:
            self._check_values(payload, max_data)
        if many_lists and has_lists_as_keys(payload):
            raise ProtocolError("bad_message", _LISTS_AS_KEYS, *self.identify(payload))
        # The parser does not validate text in unknown fields.
        if not self.binary and not payload.isascii():
            _check_utf8(payload)
        try:
            return self._request(payload)
        except _UNREADABLE as error:
            self._explain(payload, error)

    def decode_at_once(self, payload: bytes) -> Request | None:
        """Return the request in a small message; None where it is invalid, or takes long to be found valid.

        To explain what is wrong with a message takes a hundred times as long as to decode one.
        """
        if self.binary:
            if has_many_lists(payload):
                return None
        elif not payload.isascii() and not _is_utf8(payload):
            return None
        try:
            return self._request(payload)
        except _UNREADABLE:
            return None

    def _decode_exempt(self, payload: bytes) -> Request | None:
        """Return a valid heartbeat or leave; None for anything else. Builds nothing else of a message."""
        try:
            request: Request = self._exempt(payload)
        except _UNREADABLE:
            return None
        return request if self.binary or _is_utf8(payload) else None

    def _check_values(self, payload: bytes, max_data: int) -> None:
        """Raise a ProtocolError for a message that is invalid, or has more values than `data` has room for.

        As JSON each value takes a byte at least, and a separator follows it.
        """
        try:
            self._decode_as(payload, type=msgspec.Raw)
        except _UNREADABLE as error:
            broken = self._broken("it nests too deep" if isinstance(error, RecursionError) else str(error))
            broken.id = (_id_in_msgpack if self.binary else _id_in_json)(payload)
            raise broken from error
        try:
            outline = self._outline(payload)
        except _UNREADABLE as error:
            raise ProtocolError("bad_message", _NOT_AN_OBJECT) from error
        most = max(max_data // 2, _MAX_PEOPLE) + _OTHER_VALUES
        count = count_in_msgpack if self.binary else count_in_json
        if count(payload, most + 1) > most:
            sentence = f"data has more values than fit into {max_data} bytes as JSON: send less"
            room_id = _room_id(self._value(outline.room_id, AnyId))
            raise ProtocolError("data_too_big", sentence, self._value(outline.id, RequestId), room_id)

    def identify(self, payload: bytes) -> tuple[RequestId | None, str | None]:
        """Return the id and the room of a message that is not decoded, where they can be read at once."""
        try:
            outline = self._outline(payload)
        except _UNREADABLE:
            return None, None
        return self._value(outline.id, RequestId), _room_id(self._value(outline.room_id, AnyId))

    def is_never_refused(self, payload: bytes) -> bool:
        """Return whether a message is a heartbeat or a leave, and valid; builds nothing else."""
        return self._decode_exempt(payload) is not None

    def _value(self, raw: msgspec.Raw | UnsetType, type_: Any) -> Any:
        """Return the value of a field, or None where it is missing or of another type."""
        try:
            return None if raw is UNSET else self._decode_as(raw, type=type_)
        except _UNREADABLE:
            return None

    def open_members(self, message: bytes, count: int) -> bytes:
        """Return the beginning of a message with members, which the caller appends, each encoded by `encode`.

        Args:
            message: The message without `members`, encoded, as an object that could have no 16th field,
                or in a map 16.
            count: The number of members that will follow.

        """
        if not self.binary:
            return message[:-1] + b',"members":['
        # The map gets one more field, with an array 32: https://github.com/msgpack/msgpack/blob/master/spec.md
        # msgspec writes a map 16 for a struct that could have more than 15 fields, whatever it has.
        if message[0] == _MAP_16:
            head = b"\xde" + (int.from_bytes(message[1:3]) + 1).to_bytes(2) + message[3:]
        else:
            head = bytes((message[0] + 1,)) + message[1:]
        return head + b"\xa7members\xdd" + count.to_bytes(4)

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
            raise ProtocolError("bad_message", _NOT_AN_OBJECT)
        return raw

    def _broken(self, detail: str) -> ProtocolError:
        if self.binary:
            return ProtocolError("bad_message", f"not MessagePack ({detail}): send one map a message")
        return ProtocolError("bad_json", f"not JSON ({detail}): send one object a message")

    def _explain(self, payload: bytes, error: Exception) -> NoReturn:
        try:
            raw = self._parse(payload)
        except ProtocolError as broken:
            broken.id = (_id_in_msgpack if self.binary else _id_in_json)(payload)
            raise
        request_id = raw.get("id") if _fits(raw.get("id"), RequestId) else None
        room_id = _room_id(raw.get("roomId"))
        fault = _first_fault(raw) or ProtocolError("bad_message", f"not a message ({error})")
        raise ProtocolError(fault.code, fault.message, request_id, room_id) from error


def _room_id(value: object) -> str | None:
    try:
        return clean_id(value, "roomId")
    except ProtocolError:
        return None


class _Envelope(msgspec.Struct):
    """The id of a message; the decoder passes over all other fields, and does not read their text."""

    id: RequestId | None = None


_decode_envelope = msgspec.msgpack.Decoder(_Envelope).decode
_decode_id: Callable[[bytes], RequestId] = msgspec.json.Decoder(RequestId).decode

_TEXT = rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"'
# Strings, of which the last may lack its end, with what is between them.
_STRINGS = re.compile(b"(?:" + _TEXT + rb"?[^\"\[\]{}]*+)++", re.DOTALL)
_UP_TO_ID = re.compile(rb'(?:[^"]++|(?!"id"\s*+:)' + _TEXT + b"?)*+", re.DOTALL)
_ID = re.compile(rb'"id"\s*+:\s*+(' + _TEXT + rb"|-?\d{1,16}+(?=\s*+[,}]))", re.DOTALL)
_MOST_STRINGS = 4096  # before an id, between brackets: no `data` within the limit has more
_MOST_IDS = 8  # fields of that name that are looked at: the time to read a message is bounded


def _id_in_msgpack(payload: bytes) -> RequestId | None:
    try:
        return _decode_envelope(payload).id
    except _UNREADABLE:
        return None


def _id_in_json(payload: bytes) -> RequestId | None:
    """Return the `id` at the top level of a message that is not JSON, or None.

    A client cannot match an error without the id to its request. What breaks a message is usually inside its
    `data` (a lone surrogate, NaN, too deep lists), so counting the brackets outside of strings finds the top
    level. The search always goes on outside of a string, and never back: whatever a client sends, the time
    increases with its size alone.
    """
    depth = start = 0
    for _ in range(_MOST_IDS):
        end = cast("re.Match[bytes]", _UP_TO_ID.match(payload, start)).end()
        between, strings = _STRINGS.subn(b"", payload[start:end], _MOST_STRINGS)
        if strings == _MOST_STRINGS:
            return None
        depth += sum(between.count(sign) for sign in b"{[") - sum(between.count(sign) for sign in b"]}")
        if depth == 1 and (found := _ID.match(payload, end)) is not None:
            return _read_id(found[1])
        start = end + len(b'"id"')
    return None


def _read_id(text: bytes) -> RequestId | None:
    try:
        return _decode_id(text)
    except _UNREADABLE:
        return None


def _is_utf8(payload: bytes) -> bool:
    try:
        payload.decode()
    except UnicodeDecodeError:
        return False
    return True


def _check_utf8(payload: bytes) -> None:
    if not _is_utf8(payload):
        raise ProtocolError("not_utf8", "text must be UTF-8")


def _first_fault(raw: dict[str, Any]) -> ProtocolError | None:
    kind = raw.get("type")
    if not isinstance(kind, str):
        return ProtocolError("bad_message", f'"type" must be text, one of: {", ".join(TYPES)}')
    if kind not in _KINDS:
        return ProtocolError("unknown_type", f'unknown type "{kind[:64]}": use one of {", ".join(TYPES)}')
    for field in msgspec.structs.fields(_KINDS[kind]):
        name = field.encode_name
        expected = _EXPECTED_IN.get((kind, name)) or _EXPECTED.get(name)
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
