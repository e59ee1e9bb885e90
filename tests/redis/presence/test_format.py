"""The format key of a namespace: created once, checked by all, restored, and advanced when all can follow."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from reactor.errors import FormatMismatch
from reactor.fleet.format_advance import ADVANCE_DELAY, FormatAdvance
from reactor.fleet.registry import NodeRecord, Registry
from reactor.presence.format import (
    FORMATS,
    Format,
    FormatRange,
    NamespaceFormat,
    default_shards,
    open_format,
    read_format,
)
from reactor.presence.keys import Keyspace
from tests.support.servers import Server
from tests.support.stores import NAMESPACE, Direct, connected, done

KEY = "{t:fleet}:format"
RECORD = NodeRecord(1, "life", "-", "host:1")
LEASE = 5000


@contextmanager
def direct_to(server: Server) -> Iterator[Direct]:
    direct = Direct(server)
    try:
        yield direct
    finally:
        direct.client.close()


def opened(direct: Direct, shards: int | None = None, default: int = 16) -> Keyspace:
    keys = Keyspace(NAMESPACE)
    done(open_format(direct.runner, keys, shards=shards, default=default))
    return keys


def registry_of(direct: Direct, formats: FormatRange, *, shards: int = 16, number: int = 1) -> Registry:
    """What a node of a release with these formats has, which writes format `number` now."""
    registry = Registry(direct.runner, Keyspace(NAMESPACE, shards=shards))
    registry.formats, registry.format_number = formats, number
    return registry


def renew(registry: Registry, node: str, *, first: bool = True, advance: bool = True) -> Any:
    return done(registry.renew(node, RECORD, lease_ms=LEASE, first=first, advance=advance))


def stored(direct: Direct) -> tuple[int, int]:
    found: Any = direct.client.hmget(KEY, "number", "shards")
    number, shards = found
    return int(number), int(shards)


def releases(direct: Direct) -> set[bytes]:
    fields: Any = direct.client.hkeys(KEY)
    return {name for name in fields if name.startswith(b"release:")}


def test_the_first_node_creates_the_format_and_the_next_ones_take_it_over(redis_server: Server) -> None:
    with direct_to(redis_server) as direct:
        assert len(opened(direct, default=default_shards("cluster")).shards) == 96
        assert stored(direct) == (FORMATS.newest, 96)
        assert direct.client.ttl(KEY) == -1
        assert len(opened(direct).shards) == 96, "not the default of this node"
        assert len(opened(direct, shards=96).shards) == 96
        assert stored(direct) == (FORMATS.newest, 96)


def test_the_setting_counts_at_the_first_start_and_must_agree_later(redis_server: Server) -> None:
    with direct_to(redis_server) as direct:
        assert len(opened(direct, shards=3).shards) == 3
        with pytest.raises(FormatMismatch, match="namespace t has 3 shards since its first start, and the s"):
            opened(direct, shards=4)
        assert stored(direct) == (FORMATS.newest, 3)


async def test_of_nodes_that_start_at_once_one_decides(redis_server: Server) -> None:
    async with connected(redis_server) as redis:
        keys = [Keyspace(NAMESPACE) for _ in range(2)]
        ends = await asyncio.gather(
            *(
                open_format(redis.backend.runner, one, shards=shards, default=16)
                for one, shards in zip(keys, (8, 9), strict=True)
            ),
            return_exceptions=True,
        )
    found = [end for end in ends if isinstance(end, Format)]
    assert len(found) == 1
    assert [type(end) for end in ends if end not in found] == [FormatMismatch]
    assert {len(one.shards) for one in keys if one.known} == {found[0].shards}


@pytest.mark.parametrize(
    ("number", "message"),
    [(FORMATS.newest + 1, "use a newer release"), (FORMATS.oldest - 1, "use an older release")],
)
def test_another_format_is_refused_in_one_line(redis_server: Server, number: int, message: str) -> None:
    with direct_to(redis_server) as direct:
        direct.client.hset(KEY, mapping={"number": number, "shards": 16})
        with pytest.raises(FormatMismatch, match=rf"is in format {number}, .* {message}.*\.") as refused:
            opened(direct)
        assert "\n" not in str(refused.value)


@pytest.mark.parametrize("kind", ["nodes", "rooms", "pulse"])
def test_the_layout_before_format_1_is_refused(redis_server: Server, kind: str) -> None:
    with direct_to(redis_server) as direct:
        direct.client.set(f"{{t:3}}:{kind}", "x")
        with pytest.raises(FormatMismatch, match=r"development version before format 1, such as \{t:3\}"):
            opened(direct)
        assert direct.client.exists(KEY) == 0
        direct.client.delete(f"{{t:3}}:{kind}")
        assert len(opened(direct).shards) == 16


@pytest.mark.parametrize(
    "content",
    [
        {"number": "x", "shards": "16"}, {"number": "nan", "shards": "16"}, {"number": "-1", "shards": "-1"},
        {"number": "9" * 30, "shards": "inf"}, {"number": "1", "shards": "0"}, {"shards": "16"}, "a text",
    ],
)  # fmt: skip
def test_an_unreadable_format_becomes_what_registered_nodes_say(redis_server: Server, content: Any) -> None:
    with direct_to(redis_server) as direct:
        renew(registry_of(direct, FORMATS, shards=5), "n1")
        direct.client.delete(KEY)
        if isinstance(content, str):
            direct.client.set(KEY, content)
        else:
            direct.client.hset(KEY, mapping=content)
        assert len(opened(direct).shards) == 5
        assert stored(direct) == (1, 5)


def test_a_lost_format_becomes_what_the_oldest_registered_node_speaks(redis_server: Server) -> None:
    with direct_to(redis_server) as direct:
        renew(registry_of(direct, FormatRange(1, 2), shards=5), "n1", advance=False)
        renew(registry_of(direct, FormatRange(1, 1), shards=5), "n2", advance=False)
        direct.client.delete(KEY)
        reply = done(direct.runner.run("open_format", "{t:fleet}", 2, 16))
        assert reply == [1, 5]


def test_reading_the_format_writes_nothing(redis_server: Server) -> None:
    with direct_to(redis_server) as direct:
        assert done(read_format(direct.runner, "{t:fleet}")) is None
        assert direct.client.dbsize() == 0
        opened(direct, shards=7)
        assert done(read_format(direct.runner, "{t:fleet}")) == (1, 7)


class TestRenewals:
    """Each renewal of a node's lease looks at the format."""

    def test_a_lost_format_is_restored(self, redis_server: Server) -> None:
        with direct_to(redis_server) as direct:
            registry = registry_of(direct, FORMATS, shards=5)
            renew(registry, "n1")
            direct.client.delete(KEY)
            renew(registry, "n1", first=False)
            assert stored(direct) == (1, 5)

    def test_a_node_with_other_shards_may_not_renew_and_writes_nothing(self, redis_server: Server) -> None:
        with direct_to(redis_server) as direct:
            renew(registry_of(direct, FORMATS, shards=5), "n1")
            before = sorted(direct.client.keys())
            with pytest.raises(FormatMismatch, match=r"has 5 shards since .* setting shards is 6"):
                renew(registry_of(direct, FORMATS, shards=6), "n2")
            assert sorted(direct.client.keys()) == before

    def test_the_release_is_noted_and_forgotten_after_a_month(self, redis_server: Server) -> None:
        with direct_to(redis_server) as direct:
            registry = registry_of(direct, FORMATS)
            renew(registry, "n1")
            seconds, _ = direct.client.time()
            (release,) = releases(direct)
            assert abs(int(direct.client.hget(KEY, release) or 0) - seconds * 1000) < 60_000
            month, now = 31 * 86_400_000, seconds * 1000
            direct.client.hset(KEY, mapping={"release:0.0.1": now - month, "release:0.0.2": now - 86_400_000})
            direct.client.hset(KEY, mapping={"release:x": "y", release: now - 86_500_000})
            renew(registry, "n1", first=False)
            assert releases(direct) == {release, b"release:0.0.2"}

    def test_the_format_advances_once_every_node_speaks_the_newer_one(self, redis_server: Server) -> None:
        with direct_to(redis_server) as direct:
            opened(direct)
            old, new = registry_of(direct, FormatRange(1, 1)), registry_of(direct, FormatRange(1, 2))
            renew(old, "old")
            renew(new, "new")
            assert (new.format_number, stored(direct)) == (1, (1, 16))
            done(old.deregister("old"))
            renew(new, "new", first=False, advance=False)
            assert (new.format_number, stored(direct)) == (1, (1, 16)), "not before it is permitted"
            renew(new, "new", first=False)
            assert (new.format_number, stored(direct)) == (2, (2, 16))
            other = registry_of(direct, FormatRange(1, 3))
            renew(other, "other", advance=False)
            assert other.format_number == 2, "it learns of it with its next renewal"
            with pytest.raises(FormatMismatch, match="is in format 2, and this release speaks 1: use a"):
                renew(old, "old")

    def test_an_entry_that_does_not_say_what_it_speaks_holds_the_format(self, redis_server: Server) -> None:
        with direct_to(redis_server) as direct:
            new = registry_of(direct, FormatRange(1, 2))
            direct.client.hset("{t:fleet}:registry", "n9", "7 host:1")
            renew(new, "new")
            assert stored(direct) == (1, 16)

    def test_an_advance_that_a_failover_lost_is_made_again(self, redis_server: Server) -> None:
        with direct_to(redis_server) as direct:
            new = registry_of(direct, FormatRange(1, 2))
            renew(new, "new")
            assert stored(direct) == (2, 16)
            direct.client.hset(KEY, "number", 1)
            renew(new, "new", first=False, advance=False)
            assert stored(direct) == (2, 16)


class TestAdvance:
    def test_no_older_node_may_have_been_seen_for_a_while(self) -> None:
        old = RECORD._replace(formats="1-1/16")
        new = RECORD._replace(formats="1-2/16")
        advance = FormatAdvance(FormatRange(1, 2), 100.0)
        assert not advance.permitted(100.0 + ADVANCE_DELAY)
        advance.observe({"a": new, "b": old}, 150.0)
        advance.observe({"a": new}, 160.0)
        assert not advance.permitted(150.0 + ADVANCE_DELAY)
        assert advance.permitted(151.0 + ADVANCE_DELAY)

    def test_a_loss_of_the_registry_begins_it_anew(self) -> None:
        advance = FormatAdvance(FormatRange(1, 2), 0.0)
        advance.registry_lost(50.0)
        assert not advance.permitted(50.0 + ADVANCE_DELAY)


class TestWithoutANode:
    """Programs that only read."""

    async def test_the_shards_of_a_namespace_that_appears_later_are_taken_over(
        self, redis_server: Server
    ) -> None:
        async with connected(redis_server) as redis:
            keys, mismatches = Keyspace(NAMESPACE), list[FormatMismatch]()
            reader = NamespaceFormat(
                redis.backend.runner, keys, shards=None, default=16, on_mismatch=mismatches.append
            )
            await reader.check()
            assert len(keys.shards) == 16
            await open_format(redis.backend.runner, Keyspace(NAMESPACE), shards=5, default=16)
            await reader.check()
            assert len(keys.shards) == 5
            assert not mismatches

    async def test_what_is_in_use_by_then_is_refused(self, redis_server: Server) -> None:
        async with connected(redis_server) as redis:
            keys, mismatches = Keyspace(NAMESPACE), list[FormatMismatch]()
            reader = NamespaceFormat(
                redis.backend.runner, keys, shards=None, default=16, on_mismatch=mismatches.append
            )
            await reader.check()
            reader.pin()
            await open_format(redis.backend.runner, Keyspace(NAMESPACE), shards=5, default=16)
            with pytest.raises(FormatMismatch, match="created with 5 shards meanwhile, and 16 were assumed"):
                await reader.check()
            assert len(mismatches) == 1
            assert len(keys.shards) == 16
