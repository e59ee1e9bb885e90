"""What an application passes to be sent: checked and copied before anything else is done with it. PURE.

The check is here and not left to the encoder, since encoders disagree: msgspec turns a set into a list and
NaN into null, and a number of 70 bits ends a MessagePack message. A copy is taken so that the application may
go on changing its own object.
"""

import math
from typing import Any

from reactor.errors import Refused
from reactor.protocol.data import MAX_DEPTH

_PLAIN = "pass text, numbers, True, False, None, lists, or dicts with text as keys"


def json_copy(value: object, path: str) -> Any:
    """Return a copy of a value that JSON can hold, made of plain types; a tuple becomes a list.

    Args:
        value: The value.
        path: What to call it in an error's message, which goes on to the part that is wrong: `data.tags[0]`.

    Raises:
        Refused: `bad_request`: JSON or MessagePack cannot hold the value. The message names the part.

    """
    try:
        return _copy(value, path, ())
    except Refused:
        raise
    except Exception as error:
        # A subclass of dict or list, or a number, whose methods fail.
        raise _bad(f"{path} cannot be read ({error!r}): {_PLAIN}") from error


def plain_text(text: str) -> str:
    """Return the text itself, also of an enumeration or another subclass of `str`."""
    return str.__str__(text)


def check_whole_text(text: str, path: str) -> None:
    """Raise Refused (`bad_request`) for text with half a surrogate pair, which has no encoding in UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise _bad(
            f"{path} holds half a surrogate pair at character {error.start}: cut text between characters"
        ) from None


def _copy(value: object, path: str, outer: tuple[object, ...]) -> Any:
    if not isinstance(value, dict | list | tuple):
        return _scalar(value, path)
    if any(value is one for one in outer):
        raise _bad(f"{path} contains itself, which JSON cannot hold")
    if len(outer) == MAX_DEPTH:
        raise _bad(f"{path} nests deeper than {MAX_DEPTH} levels: flatten it")
    outer = (*outer, value)
    if isinstance(value, dict):
        return {_key(key, path): _copy(one, _step(path, key), outer) for key, one in value.items()}
    return [_copy(one, f"{path}[{index}]", outer) for index, one in enumerate(value)]


def _scalar(value: object, path: str) -> Any:
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        text = plain_text(value)
        check_whole_text(text, path)
        return text
    if isinstance(value, int):
        if not -(2**63) <= value < 2**64:
            raise _bad(f"{path} is a whole number of more than 64 bits: pass it as text")
        return int(value)
    if isinstance(value, float):
        if not math.isfinite(value):
            raise _bad(f"{path} is {value}, which JSON cannot hold: pass None, or text")
        return float(value)
    raise _bad(f"{path} is of type {type(value).__name__}, which JSON cannot hold: {_PLAIN}")


def _key(key: object, path: str) -> str:
    if not isinstance(key, str):
        raise _bad(f"{path} has the key {key!a}, which is not text: {_PLAIN}")
    text = plain_text(key)
    check_whole_text(text, f"the key {text!a} of {path}")
    return text


def _step(path: str, key: object) -> str:
    plain = isinstance(key, str) and key.isidentifier() and key.isascii()
    return f"{path}.{key}" if plain else f"{path}[{key!a}]"


def _bad(message: str) -> Refused:
    return Refused(message, "bad_request")
