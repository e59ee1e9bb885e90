"""Departures of one user from several rooms go into the index of people in one call, as one by one."""

from collections.abc import Iterable

from reactor.presence.keys import Entry
from reactor.presence.people import PeopleStore, decode_person_change
from tests.support.servers import Server
from tests.support.stores import Direct, done


class Followed:
    """The index, and what is published of ann."""

    def __init__(self, server: Server) -> None:
        self.direct = Direct(server)
        self.people = PeopleStore(self.direct.runner, self.direct.store.keys)
        self.shard = self.people.keys.shard_of("ann")
        self._channel = self.direct.client.pubsub(ignore_subscribe_messages=True)
        self._channel.subscribe(self.people.channel("ann"))
        self._channel.get_message(timeout=5.0)

    def enter(self, *rooms: str) -> None:
        """Rooms whose joins are confirmed, so that they count."""
        done(self.people.enter(self.shard, [(Entry(room, "ann"), f"t-{room}") for room in rooms]))
        self._correct(rooms, away=0)
        self.published()

    def set_away(self, room: str) -> None:
        self._correct([room], away=1)

    def _correct(self, rooms: Iterable[str], *, away: int) -> None:
        flat = [part for room in rooms for part in ("ann", room, "", "", away)]
        assert done(self.people._run("correct_people", self.shard, *flat)) == []

    def exit(self, *exits: tuple[str, str, str]) -> list[tuple[Entry, str]]:
        flat = [part for room, token, active in exits for part in ("ann", room, token, active)]
        reply = done(self.people._run("exit_people", self.shard, 60_000, *flat))
        return [
            (Entry(exits[reply[i] - 1][0], "ann"), reply[i + 1].decode()) for i in range(0, len(reply), 2)
        ]

    def published(self) -> list[tuple[str, int, str]]:
        found = []
        self.direct.client.publish(self.people.channel("ann"), b"end")
        while (message := self._channel.get_message(timeout=5.0)) is None or message["data"] != b"end":
            if message is not None:
                change = decode_person_change(message["data"])
                found.append((change.status, change.at, change.room))
        return found


def test_each_room_is_published_with_the_status_after_it_and_the_last_one_with_the_last_activity(
    redis_server: Server,
) -> None:
    it = Followed(redis_server)
    it.enter("one", "two", "three")
    it.set_away("two")
    assert it.exit(("one", "t-one", "1000"), ("three", "t-three", "3000")) == []
    assert it.published() == [("online", 0, "-one"), ("away", 0, "-three")]
    assert it.exit(("two", "t-two", "2000")) == []
    assert it.published() == [("offline", 3000, "-two")]


def test_a_room_with_another_token_stays_and_is_returned(redis_server: Server) -> None:
    it = Followed(redis_server)
    it.enter("one", "two")
    once = "one", "t-one", "1000"
    found = it.exit(once, ("two", "former", "9000"), once, ("none", "t", ""))
    assert found == [(Entry("two", "ann"), "t-two")]
    assert it.published() == [("online", 0, "-one")]
