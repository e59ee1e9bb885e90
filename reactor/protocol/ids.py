"""Ids of rooms and users: from what a client sent to the clean text that every later step may rely on."""

import re

from reactor.protocol.messages import ErrorCode, ProtocolError

# C0, DEL and C1: they break terminals and logs. Surrogates cannot be written as UTF-8.
_FORBIDDEN = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")


def clean_id(value: object, what: str, limit: int = 256) -> str:
    """Return an id as text.

    Any Unicode text is an id, and so is a whole number of 64 bits, which becomes its decimal digits.

    Args:
        value: What the client sent.
        what: The field's name on the wire, for the error's sentence.
        limit: Longest id in bytes of UTF-8.

    Raises:
        ProtocolError: `bad_id`, with the mend.

    """
    if isinstance(value, int) and not isinstance(value, bool):
        if not -(2**63) <= value < 2**64:
            raise ProtocolError("bad_id", f"{what} is a number of more than 64 bits: send it as text")
        return str(value)
    if not isinstance(value, str):
        raise ProtocolError("bad_id", f"{what} must be text or a whole number")
    check_text(value, what, limit)
    return value


def check_text(value: str, what: str, limit: int, code: ErrorCode = "bad_id") -> None:
    """Raise a ProtocolError unless the text is 1 to `limit` bytes of UTF-8 without control characters."""
    if not value:
        raise ProtocolError(code, f"{what} is empty: give it at least one character")
    # A character is at least a byte, so a long text need not be encoded to be refused.
    if len(value) > limit or len(value.encode("utf-8", "surrogatepass")) > limit:
        raise ProtocolError(code, f"{what} is longer than {limit} bytes of UTF-8: shorten it")
    if _FORBIDDEN.search(value):
        raise ProtocolError(code, f"{what} holds a control character or half a surrogate pair: remove it")
