"""A member's `data`: any JSON up to a limit, checked once and passed on as its compact encoding. PURE."""

import math
import re
from itertools import chain
from typing import Any

import msgspec

from reactor.protocol.messages import ProtocolError

MAX_DEPTH = 32
"""Most nesting of lists and objects; some JSON readers fail on deeper data."""

_NOT_JSON = "data must be JSON: no extension types, no bytes, no NaN, and only text as keys"

_TEXT = frozenset({str})
_JSON_TYPES = frozenset({str, int, float, bool, list, dict, type(None)})
_KEPT_AS_VALUE = 64  # bytes of JSON
_MIN, _MAX = -(2**63), 2**64 - 1

_encode = msgspec.json.Encoder().encode
_pack = msgspec.msgpack.Encoder().encode
_check_json = msgspec.json.Decoder(msgspec.Raw).decode


def json_float(text: str) -> float:
    """Return a number of JSON that is not whole: the `float_hook` of each decoder that builds data.

    msgspec itself takes 20 us for 1e300, and so 14 ms for the data of one member, which other nodes decode as
    well, and again with each list. Raises ValueError for a number that is too large.
    """
    number = float(text)
    if not math.isfinite(number):
        raise ValueError("number out of range")
    return number


class JsonText:
    """Data that is kept as its JSON: the objects that it was made of can take 27 times as many bytes.

    Equal to other data of the same text. Encoders take it with one of the hooks below.
    """

    __slots__ = ("text",)

    def __init__(self, text: bytes) -> None:
        self.text = text

    def __eq__(self, other: object) -> bool:
        return isinstance(other, JsonText) and self.text == other.text

    def __hash__(self) -> int:
        return hash(self.text)

    def __repr__(self) -> str:
        return f"JsonText({self.text!r})"


def kept(text: str) -> Any:
    """Return the value of JSON text as it is kept: that of a long text as JsonText. Raises DecodeError.

    A long text is only checked: to build the 1,023 numbers that 4 KB may hold takes 40 times as long.
    """
    if len(text) <= _KEPT_AS_VALUE:
        return _decode_any(text)
    _check_json(text)
    return JsonText(text.encode())


def built(data: Any) -> Any:
    """Return the value of data that is kept."""
    return _value(data.text) if isinstance(data, JsonText) else data


def json_of(value: Any) -> msgspec.Raw:
    """Return what an encoder of JSON writes for JsonText: its `enc_hook`."""
    if isinstance(value, JsonText):
        return msgspec.Raw(value.text)
    raise TypeError(f"{type(value).__name__} cannot be encoded")  # as without a hook


def value_of(value: Any) -> Any:
    """Return what an encoder of MessagePack writes for JsonText: its `enc_hook`."""
    if isinstance(value, JsonText):
        try:
            return msgspec.Raw(_pack(_value(value.text)))
        except OverflowError:
            return None  # a number of more than 64 bits
    raise TypeError(f"{type(value).__name__} cannot be encoded")


def _value(text: bytes) -> Any:
    """Return the value of text that was checked: None where another program wrote numbers that are none."""
    try:
        return decode_json(text)
    except (ValueError, msgspec.MsgspecError):
        return None


_exponent = re.compile(rb"e(?<=[0-9].)").search  # the letter first, which is found fast
_large_exponent = re.compile(rb"E(?<=[0-9].)").search
_decode_plain = msgspec.json.Decoder().decode
_decode_any = msgspec.json.Decoder(float_hook=json_float).decode


def decode_json(text: bytes) -> Any:
    """Return the value of JSON text. Raises msgspec.DecodeError.

    Without an exponent in it msgspec takes a fifth of the time that the hook does.
    """
    has_exponent = _exponent(text) or _large_exponent(text)
    return (_decode_any if has_exponent else _decode_plain)(text)


def data_as_json(value: Any, limit: int) -> bytes:
    """Return the compact JSON of a `data` value.

    Args:
        value: The value as decoded from a message; or `msgspec.Raw`, which this function returned before.
        limit: Most bytes of its JSON.

    Raises:
        ProtocolError: `data_too_big`, or `bad_message` for what JSON or MessagePack cannot hold.

    """
    if isinstance(value, msgspec.Raw):
        return bytes(value)
    try:
        encoded = _encode(value)
    except (TypeError, ValueError, RecursionError, OverflowError) as error:
        # MessagePack holds values that JSON does not.
        raise ProtocolError("bad_message", _NOT_JSON) from error
    if len(encoded) > limit:
        raise ProtocolError(
            "data_too_big", f"data takes {len(encoded)} bytes as JSON, the limit is {limit}: send less"
        )
    # Checked after the size, so that there are not too many values.
    _check(value)
    return encoded


def _check(value: Any) -> None:
    """Raise a ProtocolError for a value that JSON or MessagePack cannot hold.

    Written for speed, level by level: 4 KB can hold 2,000 values, which take 0.5 ms one by one.
    """
    level = [value]
    for depth in range(MAX_DEPTH + 1):
        types = set(map(type, level))
        if not types <= _JSON_TYPES:
            raise ProtocolError("bad_message", _NOT_JSON)
        if int in types:
            whole = [one for one in level if type(one) is int]
            # MessagePack holds no larger numbers, and each message must be valid in both encodings.
            if min(whole) < _MIN or max(whole) > _MAX:
                raise ProtocolError(
                    "bad_message", "data holds a number of more than 64 bits: send it as text"
                )
        if float in types and not all(math.isfinite(one) for one in level if type(one) is float):
            raise ProtocolError("bad_message", _NOT_JSON)
        lists = [one for one in level if type(one) is list] if list in types else []
        objects = [one for one in level if type(one) is dict] if dict in types else []
        if not lists and not objects:
            return
        if depth == MAX_DEPTH:
            raise ProtocolError("bad_message", f"data nests deeper than {MAX_DEPTH} levels: flatten it")
        if not _TEXT.issuperset(map(type, chain.from_iterable(objects))):
            raise ProtocolError("bad_message", _NOT_JSON)
        level = list(chain(*lists, *map(dict.values, objects)))
