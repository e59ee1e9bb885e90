"""`Presence.watch`: the whole list, then each event, without repetitions or omissions."""

import pytest

from reactor.errors import Unavailable
from reactor.presence import room_feed as diffs
from reactor.presence import watch
from tests.redis.presence.watching import presence_and_probe, watching
from tests.support.servers import Server
from tests.support.waiting import until


async def test_a_watch_yields_a_list_and_then_each_event(redis_server: Server) -> None:
    async with presence_and_probe(redis_server) as (presence, probe):
        probe.join("ann")
        async with watching(presence) as it:
            assert await it.next_change() == "=ann (1)"
            probe.join("bob", username="B")
            assert await it.next_change() == "+bob (2)"
            probe.ask("update", "bob", "Bob", "", "", 0)
            event = await it.next()
            assert (event.kind, event.member and event.member.username) == ("update", "Bob")
            probe.ask("leave", "ann", "n1.1")
            assert await it.next_change() == "-ann:left (1)"
            probe.expire("bob")
            probe.claim("bob")
            assert await it.next_change() == "-bob:inactivity_timeout (0)"


async def test_watchers_of_one_room_and_of_others_are_independent(redis_server: Server) -> None:
    async with presence_and_probe(redis_server) as (presence, probe):
        async with watching(presence) as one, watching(presence) as two, watching(presence, "hall") as other:
            for each in (one, two, other):
                assert await each.next_change() == "= (0)"
            probe.join("ann")
            probe.join("bob", room="hall")
            assert await one.next_change() == await two.next_change() == "+ann (1)"
            assert await other.next_change() == "+bob (1)"
        channel = "{t:7wc}:diff:lobby"
        await until(lambda: redis_server.control.pubsub_numsub(channel) == [(channel, 0)])
        async with watching(presence) as again:
            assert await again.next_change() == "=ann (1)"


@pytest.mark.parametrize("how", ["killed", "server restarted"])
async def test_after_a_lost_connection_a_watch_yields_each_difference_once(
    redis_server: Server, how: str
) -> None:
    async with presence_and_probe(redis_server) as (presence, probe):
        for user in ("ann", "bob", "cy"):
            probe.join(user)
        async with watching(presence) as it:
            assert await it.next_change() == "=ann,bob,cy (3)"
            if how == "killed":
                redis_server.control.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
                probe.ask("leave", "ann", "n1.1")
                probe.ask("update", "bob", "B", "", "", 0)
            else:
                redis_server.restart()
                for user in ("bob", "cy"):
                    probe.join(user, username="B" if user == "bob" else "")
            probe.join("dan")
            events = {await it.next_change() for _ in range(3)}
            if how == "killed":
                assert {event.partition(" ")[0] for event in events} == {"-ann:left", "~bob", "+dan"}
            probe.join("eve")
            rest = []
            while "eve" not in (said := await it.next_change()):
                rest.append(said)
            assert said.startswith("+eve")
            assert (rest == []) == (how == "killed")
            assert not [said for said in rest if "dan" in said and any("+dan" in event for event in events)]


async def test_a_watcher_that_falls_behind_gets_a_sync(
    redis_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "MAX_BEHIND", 50)
    async with (
        presence_and_probe(redis_server) as (presence, probe),
        watching(presence) as slow,
        watching(presence) as quick,
    ):
        assert await slow.next_change() == await quick.next_change() == "= (0)"
        for number in range(120):
            probe.join(f"u{number}")
            assert await quick.next_change() == f"+u{number} ({number + 1})"
        event = await slow.next()
        assert (event.kind, event.count, len(event.members)) == ("sync", 120, 120)
        probe.ask("kick", "u0", "")
        assert await slow.next_change() == await quick.next_change() == "-u0:kicked (119)"


async def test_a_watch_raises_unavailable_while_redis_is_away(
    redis_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with presence_and_probe(redis_server) as (presence, _):
        redis_server.kill()
        with monkeypatch.context() as impatient:
            impatient.setattr(diffs, "DISCONNECTED_TIMEOUT", 0.3)
            async with watching(presence) as it:
                with pytest.raises(Unavailable):
                    await it.next()
        redis_server.start()
        async with watching(presence) as it:
            assert await it.next_change() == "= (0)"


async def test_an_unreadable_publication_ends_no_watch(redis_server: Server) -> None:
    async with presence_and_probe(redis_server) as (presence, probe), watching(presence) as it:
        assert await it.next_change() == "= (0)"
        redis_server.control.publish("{t:7wc}:diff:lobby", "garbage")
        probe.join("ann")
        assert await it.next_change() == "+ann (1)"
