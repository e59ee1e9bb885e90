"""Looks at the values in a message before they are built: an empty list takes 56 times its byte. PURE."""

import re
from itertools import islice

# Each match is one value or key, or the beginning of a list or an object.
_JSON_VALUE = re.compile(rb'"(?:[^"\\]|\\.)*+"|[\[{]|[^\s,:\[\]{}"]+', re.DOTALL)

_WIDTHS = {  # of the length that follows the first byte of a text, of bytes, or of an extension
    0xC4: 1, 0xC5: 2, 0xC6: 4, 0xC7: 1, 0xC8: 2, 0xC9: 4, 0xD9: 1, 0xDA: 2, 0xDB: 4,
}  # fmt: skip
_FIXED = {  # bytes that follow the first one; lists and maps are followed by what they hold
    0xCA: 4, 0xCB: 8, 0xCC: 1, 0xCD: 2, 0xCE: 4, 0xCF: 8, 0xD0: 1, 0xD1: 2, 0xD2: 4, 0xD3: 8,
    0xD4: 2, 0xD5: 3, 0xD6: 5, 0xD7: 9, 0xD8: 17, 0xDC: 2, 0xDD: 4, 0xDE: 2, 0xDF: 4,
}  # fmt: skip

_NO_LIST = bytes(set(range(256)) - {*range(0x90, 0xA0), 0xDC, 0xDD})
_FEW = 64  # lists as keys that cost nothing: 0.1 ms if all of them have the same hash


def count_in_json(text: bytes, most: int) -> int:
    """Return how many values and keys valid JSON has, counting to `most`; or an upper bound below it."""
    # Each value but one follows one of these, which may also stand in text; nothing follows in an empty list.
    bound = 1 + sum(map(text.count, (b",", b":", b"[", b"{"))) - text.count(b"[]") - text.count(b"{}")
    if bound < most:
        return bound
    return sum(1 for _ in islice(_JSON_VALUE.finditer(text), most))


def count_in_msgpack(data: bytes, most: int) -> int:
    """Return how many values and keys valid MessagePack has, counting to `most`.

    Source: https://github.com/msgpack/msgpack/blob/master/spec.md#formats.
    """
    at = count = 0
    while at < len(data) and count < most:
        first = data[at]
        at += 1
        count += 1
        if first >= 0xA0:
            at += _size_after(first, data, at)
    return count


def has_many_lists(data: bytes) -> bool:
    """Return whether MessagePack may have more than a few lists."""
    return len(data.translate(None, _NO_LIST)) > _FEW


def has_lists_as_keys(data: bytes) -> bool:
    """Return whether a map in MessagePack has lists as keys, where these are more than a few.

    The hash of text is secret to the process, but any number of lists with the same hash is easily made,
    since -1 and -2 have the same: 360 of these in 4 KB take 3 ms to be put into one dict.
    """
    if not has_many_lists(data):
        return False
    at, left, is_map = 0, 1, False  # what is left of the open list or map, where a pair is two
    outer: list[tuple[int, bool]] = []
    while at < len(data) and left:
        first = data[at]
        is_key = is_map and left % 2 == 0
        at += 1
        left -= 1
        if 0x80 <= first < 0xA0 or 0xDC <= first <= 0xDF:
            if is_key:
                return True
            width = _FIXED.get(first, 0)
            length = int.from_bytes(data[at : at + width]) if width else first & 15
            at += width
            if length:
                outer.append((left, is_map))
                is_map = first < 0x90 or first >= 0xDE
                left = 2 * length if is_map else length
        elif first >= 0xA0:
            at += _size_after(first, data, at)
        while not left and outer:
            left, is_map = outer.pop()
    return False


def _size_after(first: int, data: bytes, at: int) -> int:
    """Return how many bytes a value takes behind its first one, which is at `at - 1`."""
    if first < 0xC0:  # a short text
        return first & 31
    if (width := _WIDTHS.get(first)) is not None:
        extension = 0xC7 <= first <= 0xC9  # its type is one more byte
        return width + int.from_bytes(data[at : at + width]) + extension
    return _FIXED.get(first, 0)
