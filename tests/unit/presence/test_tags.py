"""Tags of shards: their slots are evenly spaced, whatever the namespace, and they never change."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis.crc import key_slot

from reactor.presence.keys import Keyspace
from reactor.presence.tags import CLUSTER_SHARDS, MAX_SHARDS, SHARDS, SLOTS, shard_tags, slot_of

NAMESPACES = st.from_regex(r"[A-Za-z0-9._-]{1,64}", fullmatch=True)


def busiest(slots: list[int], primaries: int) -> int:
    """The most shards on one of several primaries with equal, contiguous ranges of slots."""
    # As redis-cli --cluster create divides them.
    first = [round(SLOTS * number / primaries) for number in range(primaries + 1)]
    return max(sum(low <= slot < high for slot in slots) for low, high in pairwise(first))


def slots_of(namespace: str, shards: int) -> list[int]:
    return [key_slot(prefix.encode()) for prefix in Keyspace(namespace, shards=shards).prefixes]


@given(NAMESPACES, st.integers(1, MAX_SHARDS))
def test_no_primary_has_more_shards_than_its_share_rounded_up(namespace: str, shards: int) -> None:
    slots = slots_of(namespace, shards)
    for primaries in range(1, 17):
        assert busiest(slots, primaries) == -(-shards // primaries)


@given(NAMESPACES)
def test_with_the_shards_of_a_cluster_the_busiest_has_a_tenth_more_than_its_share(namespace: str) -> None:
    slots = slots_of(namespace, CLUSTER_SHARDS)
    for primaries in range(3, 17):
        assert busiest(slots, primaries) <= 1.1 * CLUSTER_SHARDS / primaries


@given(NAMESPACES, st.integers(1, MAX_SHARDS))
def test_a_tag_is_the_shards_number_and_a_few_letters(namespace: str, shards: int) -> None:
    tags = shard_tags(namespace, shards)
    assert len(set(tags)) == shards
    for shard, tag in enumerate(tags):
        letters = tag.removeprefix(str(shard))
        assert letters.isalpha()
        assert 1 <= len(letters) <= 4


@given(NAMESPACES, st.integers(0, 99))
def test_the_slot_of_a_tag_is_the_one_that_redis_computes(namespace: str, number: int) -> None:
    assert slot_of(f"{namespace}:{number}") == key_slot(f"{{{namespace}:{number}}}:room:a:user:b".encode())


def test_tags_never_change() -> None:
    # Other tags would be other keys: the members of a running fleet would be gone.
    assert shard_tags("reactor", SHARDS) == (
        "0lf", "1mf", "2nf", "3gbg", "4xb", "5yb", "6zb", "7kf", "8df", "9fnq", "10bw", "11y", "12gvk",
        "13dqy", "14fw", "15gw",
    )  # fmt: skip
    assert shard_tags("reactor", CLUSTER_SHARDS)[-3:] == ("93fcq", "94czl", "95lsf")
    assert shard_tags("shop.eu-1", 4) == shard_tags("shop.eu-1", 4)


@pytest.mark.parametrize("shards", [0, -1, MAX_SHARDS + 1])
def test_other_numbers_of_shards_are_refused(shards: int) -> None:
    with pytest.raises(ValueError, match=f"{shards} shards"):
        shard_tags("reactor", shards)
