"""Before its first write a script asks whether its user may do all that a change needs.

Redis 8 refuses to check a command that has too few arguments, and so every change failed there.
"""

import re
from collections.abc import Callable, Coroutine
from importlib.resources import files
from typing import Any

import pytest
import redis

from reactor.presence.keys import Entry
from reactor.presence.store import Store
from tests.support.keyspace import keyspace
from tests.support.servers import Server
from tests.support.stores import NAMESPACE, Direct, DirectRunner, done


def test_each_command_is_checked_with_as_many_arguments_as_it_takes(redis_server: Server) -> None:
    source = (files("reactor.presence") / "lua" / "lib" / "rights.lua").read_text()
    entries = re.findall(r"lacking\(('[A-Z]+'|PUBLISH)((?:, [^,()]+)*)\)", source)
    assert len(entries) > 16
    known = redis_server.control.command()
    for command, words in entries:
        name = "PUBLISH" if command == "PUBLISH" else command.strip("'")
        arity = known[name.lower()]["arity"]
        given = 2 + words.count(",")  # the command and its key or channel
        assert given == arity or (arity < 0 and given >= -arity), (command, words, arity)


ANN, BOB = Entry("lobby", "ann"), Entry("lobby", "bob")
WRITES = (
    "pexpireat",
    "hset",
    "hdel",
    "hincrby",
    "zadd",
    "zrem",
    "sadd",
    "srem",
    "del",
    "set",
    "xadd",
    "publish",
)
TRANSITIONS: dict[str, Callable[[Store], Coroutine[Any, Any, Any]]] = {
    "a first join": lambda store: store.join(BOB, "n1.2", ttl=60_000, person="n1-2"),
    "a join by a further connection": lambda store: store.join(ANN, "n1.2", ttl=60_000, away=True),
    "a leave": lambda store: store.leave(ANN, "n1.1"),
    "a detach": lambda store: store.detach(ANN, "n1.1", grace=10_000, away_grace=10_000),
    "a kick": lambda store: store.kick(ANN),
}


@pytest.mark.parametrize("transition", TRANSITIONS.values(), ids=TRANSITIONS)
def test_a_transition_whose_user_lacks_a_right_writes_nothing(
    redis_server: Server, transition: Callable[[Store], Coroutine[Any, Any, Any]]
) -> None:
    admin = Direct(redis_server).client
    limited = redis.Redis(
        unix_socket_path=str(redis_server.socket), protocol=2, username="limited", password="x"
    )
    refused = []
    for right in WRITES:
        admin.flushall()
        admin.execute_command("ACL", "SETUSER", "limited", "reset", "on", ">x", "~*", "&*", "+@all")
        store = Store(DirectRunner(limited), keyspace(NAMESPACE))
        done(store.join(ANN, "n1.1", ttl=60_000, person="n1-1"))
        before = {key: admin.dump(key) for key in admin.keys("*")}
        admin.execute_command("ACL", "SETUSER", "limited", f"-{right}")
        try:
            done(transition(store))
        except (redis.exceptions.ResponseError, redis.exceptions.NoPermissionError):
            refused.append(right)
            assert {key: admin.dump(key) for key in admin.keys("*")} == before, right
    assert {"hset", "publish"} <= set(refused)
