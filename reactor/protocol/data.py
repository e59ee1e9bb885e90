"""A member's `data`: any JSON up to a limit, checked once and passed on as its compact encoding. PURE."""

import math
from collections.abc import Iterable
from typing import Any

import msgspec

from reactor.protocol.messages import ProtocolError

MAX_DEPTH = 32
"""Most nesting of lists and objects; some JSON readers fail on deeper data."""

_NOT_JSON = "data must be JSON: no extension types, no bytes, no NaN, and only text as keys"

_TEXT = frozenset({str})
_MIN, _MAX = -(2**63), 2**64 - 1

_encode = msgspec.json.Encoder().encode


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
    # Checked after the size, so that the recursion is bounded too.
    _check((value,), MAX_DEPTH)
    return encoded


def _check(values: Iterable[Any], depth: int) -> None:
    """Raise a ProtocolError for values that JSON or MessagePack cannot hold.

    depth: how many levels of lists and objects may follow. Written for speed: 4 KB can hold 2,000 values.
    """
    for value in values:
        kind = type(value)
        if kind is str or value is None or kind is bool:
            continue
        if kind is int:
            # MessagePack holds no larger numbers, and each message must be valid in both encodings.
            if not _MIN <= value <= _MAX:
                raise ProtocolError(
                    "bad_message", "data holds a number of more than 64 bits: send it as text"
                )
        elif kind is list or kind is dict:
            if depth == 0:
                raise ProtocolError("bad_message", f"data nests deeper than {MAX_DEPTH} levels: flatten it")
            if kind is dict and not _TEXT.issuperset(map(type, value)):
                raise ProtocolError("bad_message", _NOT_JSON)
            _check(value if kind is list else value.values(), depth - 1)
        elif kind is not float or not math.isfinite(value):
            raise ProtocolError("bad_message", _NOT_JSON)
