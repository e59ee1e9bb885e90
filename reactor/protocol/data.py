"""A member's `data`: any JSON up to a limit, checked once and passed on as its compact encoding. PURE."""

import math
from typing import Any

import msgspec

from reactor.protocol.messages import ProtocolError

MAX_DEPTH = 32
"""Most nesting of lists and objects; some JSON readers fail on deeper data."""

_NOT_JSON = "data must be JSON: no extension types, no bytes, no NaN, and only text as keys"

_encode = msgspec.json.Encoder().encode


def data_as_json(value: Any, limit: int) -> bytes:
    """Return the compact JSON of a `data` value.

    Args:
        value: The value as decoded from a message.
        limit: Most bytes of its JSON.

    Raises:
        ProtocolError: `data_too_big`, or `bad_message` for what JSON or MessagePack cannot hold.

    """
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
    _check(value, MAX_DEPTH)
    return encoded


def _check(value: Any, depth: int) -> None:
    if isinstance(value, dict | list):
        if depth == 0:
            raise ProtocolError("bad_message", f"data nests deeper than {MAX_DEPTH} levels: flatten it")
        if isinstance(value, dict):
            if not all(isinstance(key, str) for key in value):
                raise ProtocolError("bad_message", _NOT_JSON)
            value = value.values()
        for item in value:
            _check(item, depth - 1)
    elif isinstance(value, int):
        # MessagePack holds no larger numbers, and each message must be valid in both encodings.
        if not -(2**63) <= value < 2**64:
            raise ProtocolError("bad_message", "data holds a number of more than 64 bits: send it as text")
    elif not (value is None or isinstance(value, str) or (isinstance(value, float) and math.isfinite(value))):
        raise ProtocolError("bad_message", _NOT_JSON)
