"""Keys that were edited externally: only the edited member is affected, and only for a while."""

from typing import Any

import pytest

from tests.redis.presence.cases import probing
from tests.redis.presence.probe import AWAY_GRACE, TTL, Probe
from tests.support.keyspace import SHARDS, shard_of
from tests.support.servers import Server
from tests.support.stores import done

FIELDS = ["socketId", "userId", "roomId", "username", "lastActiveAt", "joinedAt"]


def everything(probe: Probe) -> dict[str, Any]:
    """One call of each kind about the lobby, in which ann's key was edited and bob's was not."""
    store, shard = probe.store, shard_of("lobby")
    return {
        "list": done(store.members("lobby")),
        "count": done(store.count("lobby")),
        "rooms": done(store.rooms(shard)),
        "refresh": probe.refresh("ann", "bob"),
        "due": done(store.due(shard, limit=100, retry=0)),
        "audit": [done(store.audit(one, 0)) for one in range(SHARDS)],
        "join": probe.join("ann", "n1.2"),
        "update": probe.ask("update", "ann", "A", "1", "", 0),
        "away": probe.ask("set_away", "ann", "n1.2", 1),
    }


@pytest.mark.parametrize("field", FIELDS)
def test_a_missing_field_fails_no_script(redis_server: Server, field: str) -> None:
    with probing(redis_server) as probe:
        for user in ("ann", "bob"):
            probe.join(user, username="name")
        probe.client.hdel(probe.presence_key("ann"), field)
        replies = everything(probe)
        assert "bob" in {member.user_id for member in replies["list"].members}
        assert replies["refresh"][1][1:] == b"1"
        assert replies["join"][0] == b"resumed"
        assert len(replies["join"]) == 7
        assert all(isinstance(number, int) for number in replies["join"][3:6])
        assert replies["update"][0] == b"updated"
        probe.client.hdel(probe.presence_key("ann"), field)
        probe.detach("ann", "n1.1")
        reply = probe.detach("ann", "n1.2")
        assert reply[0] == b"grace"
        assert probe.remaining("ann") <= AWAY_GRACE, "the grace begins whichever field is missing"
        probe.expire("ann")
        assert probe.claim("ann")[2] == b"disconnected"
        assert [left.user_id for _, row in probe.received().diffs for left in row.left] == ["ann"]


@pytest.mark.parametrize("kind", ["string", "list"])
def test_a_presence_key_of_another_type_affects_no_other_member(redis_server: Server, kind: str) -> None:
    with probing(redis_server) as probe:
        for user in ("ann", "bob"):
            probe.join(user)
        probe.client.delete(probe.presence_key("ann"))
        if kind == "string":
            probe.client.set(probe.presence_key("ann"), "?", px=TTL)
        else:
            probe.client.rpush(probe.presence_key("ann"), "?")
            probe.client.pexpire(probe.presence_key("ann"), TTL)
        shard = shard_of("lobby")
        assert [member.user_id for member in done(probe.store.members("lobby")).members] == ["bob"]
        assert done(probe.store.rooms(shard)) == {"lobby": 2}
        assert probe.refresh("ann", "bob")[1] == b"01"
        probe.pass_time(TTL - 1_000)
        assert done(probe.store.due(shard, limit=10, retry=0)).gone == []
        probe.pass_time(1_000)
        probe.refresh("bob")
        probe.expire("ann", "bob")
        gone = done(probe.store.due(shard, limit=10, retry=0)).gone
        assert sorted(one.suffix for one in done(probe.store.claim(shard, gone))) == [
            "lobby:user:ann", "lobby:user:bob",
        ]  # fmt: skip


def test_a_deleted_member_row_is_restored_by_the_next_join(redis_server: Server) -> None:
    with probing(redis_server) as probe:
        probe.join("ann")
        probe.join("bob")
        probe.client.delete(probe.members_key())
        probe.shadow_deleted = True
        assert probe.join("ann", "n1.2")[0] == b"resumed"
        probe.join("bob", "n1.2")
        assert done(probe.store.count("lobby")).count == 2
        assert probe.stored_deadline("ann") <= probe.expires_at("ann")


@pytest.mark.parametrize("kind", ["string", "list"])
def test_a_presence_key_of_another_type_keeps_its_user_out_no_longer(redis_server: Server, kind: str) -> None:
    with probing(redis_server) as probe:
        probe.join("ann")
        probe.join("bob")
        probe.client.delete(probe.presence_key("ann"))
        if kind == "string":
            probe.client.set(probe.presence_key("ann"), "?", px=TTL)
        else:
            probe.client.rpush(probe.presence_key("ann"), "?")
            probe.client.pexpire(probe.presence_key("ann"), TTL)
        outcome, _, _, _, count, *_ = probe.join("ann", "n1.2")
        assert (outcome, count) == (b"resumed", 2)
        assert probe.presence("ann")["userId"] == probe.id("ann")
        assert probe.departures() == [], "no one has left"
        aside = [key for key in probe.client.keys("*") if b":damaged:" in key]
        assert len(aside) == 1
        assert probe.client.ttl(aside[0]) > 0
        probe.client.delete(*aside)


def test_what_a_lost_row_leaves_of_a_member_is_removed_with_its_presence_key(redis_server: Server) -> None:
    with probing(redis_server) as probe:
        probe.join("ann")
        probe.join("bob")
        probe.client.delete(probe.members_key())
        probe.client.set(probe.members_key(), "?")
        probe.client.delete(probe.presence_key("ann"))
        assert probe.client.exists(probe.shadow_key("ann")) == 1
        (_now,) = probe.claim("ann")
        assert probe.client.exists(probe.shadow_key("ann")) == 0
        assert not [key for key in probe.client.keys("*") if b"ann" in key]
        assert probe.client.exists(probe.shadow_key("bob")) == 1, "its presence key lives"
        probe.join("bob")  # as its node does
        probe.client.delete(probe.key("damaged:members:lobby"))
