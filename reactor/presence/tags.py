"""Hash tags whose slots are evenly spaced, so that every primary of a cluster gets its share of shards. PURE.

A key's slot in a cluster is the CRC-16 of its hash tag, modulo 16,384
(https://redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec/#key-distribution-model). Tags that
were only numbered would fall anywhere: of 16 shards, one of three primaries would have 7 and another 3, and
of twelve primaries four would have none. So each tag ends with a few letters that move its slot to where it
should be: shard n of N lies in the middle of the nth of N equal parts. Of primaries with equal, contiguous
ranges of slots, as `redis-cli --cluster create` makes them, none then has more shards than the number of
shards divided by that of primaries, rounded up.

The tags are part of the format of a namespace: another choice of letters would be other keys.
"""

from binascii import crc_hqx
from functools import cache
from itertools import product

SHARDS, CLUSTER_SHARDS = 16, 96
"""Shards of a new namespace. Of 3 to 16 primaries with equal ranges of slots, with 96 none has more than 1.1
times its share. On a single server more shards only cost more calls."""
SLOTS = 16_384
MAX_SHARDS = 256
"""More would need longer tags, and hundreds of calls a second of each node while nothing happens."""

_LETTERS = "bcdfghjklmnpqrstvwxyz"
"""Without most vowels, so that no tag is a word; a digit would run into the shard's number."""
_MAX_LETTERS = 5


@cache
def shard_tags(namespace: str, shards: int) -> tuple[str, ...]:
    """Return what stands behind the namespace in the hash tag of each shard: its number and some letters."""
    if not 1 <= shards <= MAX_SHARDS:
        raise ValueError(f"{shards} shards: from 1 to {MAX_SHARDS} are possible")
    return tuple(f"{shard}{_letters(namespace, shard, shards)}" for shard in range(shards))


def slot_of(tag: str) -> int:
    """Return the slot of a key with this hash tag."""
    return crc_hqx(tag.encode(), 0) % SLOTS


def _letters(namespace: str, shard: int, shards: int) -> str:
    """The fewest letters that put a shard where it belongs, to a 64th of the distance of two shards."""
    wanted = (2 * shard + 1) * SLOTS // (2 * shards)
    nearest = sorted(range(-(SLOTS // (64 * shards)), SLOTS // (64 * shards) + 1), key=abs)
    for length in range(1, _MAX_LETTERS + 1):
        # The CRC is linear: that of a text is that of the text with zeros at its end, XOR that of this end.
        start = crc_hqx(f"{namespace}:{shard}".encode() + bytes(length), 0)
        ends = _ends(length)
        for distance in nearest:
            if (found := ends.get((wanted + distance ^ start) % SLOTS)) is not None:
                return found
    raise AssertionError(f"no tag for shard {shard} of {shards}")


@cache
def _ends(length: int) -> dict[int, str]:
    """By CRC, modulo the slots: the first text of `length` letters that has it."""
    ends: dict[int, str] = {}
    for letters in product(_LETTERS, repeat=length):
        text = "".join(letters)
        ends.setdefault(slot_of(text), text)
    return ends
