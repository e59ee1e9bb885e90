"""Ids of rooms and users: validates what a client sent and converts it to text. PURE."""

import re
from collections.abc import Iterable, Sequence
from typing import Final, cast

from reactor.protocol.messages import ErrorCode, ProtocolError

# Control characters (C0, DEL, C1) break terminals and logs; surrogates have no UTF-8 encoding.
_FORBIDDEN = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_LEAST: Final = -(2**63)
_MOST: Final = 2**64 - 1


def clean_id(value: object, what: str, limit: int = 256) -> str:
    """Return an id as text.

    An id is any Unicode text without control characters, or a whole number of 64 bits, which is converted to
    its decimal digits.

    Args:
        value: What the client sent.
        what: The field's name on the wire, for the error message.
        limit: Longest id in bytes of UTF-8.

    Raises:
        ProtocolError: `bad_id`.

    """
    if isinstance(value, int) and not isinstance(value, bool):
        if not _LEAST <= value <= _MOST:
            raise ProtocolError("bad_id", f"{what} is a number of more than 64 bits: send it as text")
        return str(value)
    if not isinstance(value, str):
        raise ProtocolError("bad_id", f"{what} must be text or a whole number")
    check_text(value, what, limit)
    return value


def clean_ids(values: Sequence[str | int], what: str, limit: int = 256) -> list[str]:
    """Return many ids as text, each once; as `clean_id` does, but in a tenth of its time.

    Raises:
        ProtocolError: `bad_id`.

    """
    types = set(map(type, values))
    if types == {int}:
        # Before they are keys: any number of larger ones have the same hash, which is n modulo 2**61 - 1.
        numbers = cast("Sequence[int]", values)
        if min(numbers) >= _LEAST and max(numbers) <= _MOST:
            return list(map(str, dict.fromkeys(numbers)))
    elif types == {str}:
        texts = dict.fromkeys(cast("Sequence[str]", values))
        if _all_valid(texts, limit):
            return list(texts)
    return list(dict.fromkeys(clean_id(one, what, limit) for one in values))


def _all_valid(ids: Iterable[str], limit: int) -> bool:
    """Return whether all ids are valid; False also where only a look at each of them shows it."""
    everything = "".join(ids)
    longest = limit if everything.isascii() else limit // 4
    if "" in ids or max(map(len, ids)) > longest:
        return False
    return everything.isprintable() or not _FORBIDDEN.search(everything)


def check_text(value: str, what: str, limit: int, code: ErrorCode = "bad_id") -> None:
    """Raise a ProtocolError unless the text is 1 to `limit` bytes of UTF-8 without control characters."""
    if not value:
        raise ProtocolError(code, f"{what} is empty: give it at least one character")
    # A character takes at least one byte, so a text that is too long need not be encoded.
    if len(value) > limit or len(value.encode("utf-8", "surrogatepass")) > limit:
        raise ProtocolError(code, f"{what} is longer than {limit} bytes of UTF-8: shorten it")
    if _FORBIDDEN.search(value):
        raise ProtocolError(code, f"{what} holds a control character or half a surrogate pair: remove it")
