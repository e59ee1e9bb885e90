"""A member's `data`: any JSON, small; checked once, and from then on its compact JSON encoding."""

import math
from typing import Any

import msgspec

from reactor.protocol.messages import ProtocolError

MAX_DEPTH = 32
"""Lists and objects inside one another; deeper data breaks some reader down the line."""

_NOT_JSON = "data must be JSON: no extension types, no bytes, no NaN, and only text as keys"

_encode = msgspec.json.Encoder().encode


def data_as_json(value: Any, limit: int) -> bytes:
    """Return the compact JSON of what a client sent as `data`.

    Args:
        value: The decoded value.
        limit: Most bytes that its JSON may take.

    Raises:
        ProtocolError: `data_too_big`, or `bad_message` for what JSON or the other codec cannot hold.

    """
    try:
        encoded = _encode(value)
    except (TypeError, ValueError, RecursionError, OverflowError) as error:
        # MessagePack can carry what JSON cannot.
        raise ProtocolError("bad_message", _NOT_JSON) from error
    if len(encoded) > limit:
        raise ProtocolError(
            "data_too_big", f"data takes {len(encoded)} bytes as JSON, the most is {limit}: send less"
        )
    # Only what fits is walked, so the walk is bounded too.
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
        # MessagePack holds no more, and each message must fit in both codecs.
        if not -(2**63) <= value < 2**64:
            raise ProtocolError("bad_message", "data holds a number of more than 64 bits: send it as text")
    elif not (value is None or isinstance(value, str) or (isinstance(value, float) and math.isfinite(value))):
        raise ProtocolError("bad_message", _NOT_JSON)
