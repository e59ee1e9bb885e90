"""A node's copy of the bans: what is published while all are read, and what comes late."""

from collections.abc import AsyncIterator

import pytest
from msgspec import json

from reactor.errors import Unavailable
from reactor.presence import known_bans
from reactor.presence.bans import Ban
from reactor.presence.known_bans import REMEMBERED, KnownBans


class Case:
    """Bans in Redis, and a copy of them."""

    def __init__(self) -> None:
        self.now = 10_000
        self.stored: list[Ban] = []
        self.acted: list[Ban] = []
        self.meanwhile: list[Ban] = []
        self.fails = False
        self.bans = KnownBans(self._read, now=lambda: self.now, on_banned=self.acted.append)

    async def _read(self) -> AsyncIterator[Ban]:
        for ban in self.stored:
            yield ban
        for ban in self.meanwhile:
            self.publish(ban)
        if self.fails:
            raise Unavailable("Redis is away")

    def publish(self, ban: Ban) -> None:
        self.bans.on_message(json.encode(ban))


def ban(user: str, room: str | None = None, *, until: int = 20_000) -> Ban:
    return Ban(user_id=user, room_id=room, until=until)


async def test_the_last_change_of_each_ban_is_remembered_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    case, seconds = Case(), 0.0
    monkeypatch.setattr(known_bans, "monotonic", lambda: seconds)
    case.stored = [ban("old")]
    await case.bans.load()
    for change in (ban("ann"), ban("bob", "lobby"), ban("ann", until=0)):
        case.publish(change)
        seconds += 100.0
    assert case.bans.recent_changes() == [(ban("bob", "lobby"), 200_000), (ban("ann", until=0), 100_000)]
    seconds = 100.0 + REMEMBERED + 1.0
    assert case.bans.recent_changes() == [(ban("ann", until=0), 201_000)], "what was read was not lost lately"


async def test_a_ban_everywhere_is_found_for_each_room_and_one_from_a_room_for_that_alone() -> None:
    case = Case()
    case.stored = [ban("ann"), ban("bob", "lobby")]
    await case.bans.load()
    assert case.acted == case.stored
    assert case.bans.find("ann") == case.bans.find("ann", "lobby") == case.stored[0]
    assert case.bans.find("bob", "lobby") == case.stored[1]
    assert case.bans.find("bob") is None
    assert case.bans.find("bob", "attic") is None
    case.now = 20_000
    assert case.bans.find("ann") is None


async def test_what_is_published_while_the_bans_are_read_is_newer_than_what_is_read() -> None:
    case = Case()
    case.stored = [ban("ann"), ban("bob")]
    case.meanwhile = [ban("ann", until=0), ban("cy")]
    await case.bans.load()
    assert [case.bans.find(user) is not None for user in ("ann", "bob", "cy")] == [False, True, True]
    assert {one.user_id for one in case.acted} == {"bob", "cy"}


async def test_a_reading_that_fails_changes_nothing_but_what_was_published() -> None:
    case = Case()
    case.stored = [ban("ann")]
    await case.bans.load()
    case.stored, case.meanwhile, case.fails = [], [ban("bob")], True
    with pytest.raises(Unavailable):
        await case.bans.load()
    assert case.bans.find("ann") is not None
    assert case.bans.find("bob") is not None
    case.fails, case.meanwhile = False, []
    await case.bans.load()
    assert case.bans.find("ann") is None, "it was lifted, or lost"


async def test_a_ban_that_has_ended_by_the_time_it_is_heard_of_ends_nothing() -> None:
    case = Case()
    case.publish(ban("ann", until=9_999))
    case.stored = [ban("bob", until=9_999)]
    await case.bans.load()
    assert case.acted == []


async def test_a_ban_is_acted_on_once_however_often_it_is_read() -> None:
    case = Case()
    case.stored = [ban("ann")]
    await case.bans.load()
    await case.bans.load()
    assert len(case.acted) == 1
    case.stored = [ban("ann", until=30_000)]
    await case.bans.load()
    assert len(case.acted) == 2, "it is another one"


def test_what_cannot_be_read_changes_nothing() -> None:
    case = Case()
    case.bans.on_message(b"{")
    assert len(case.bans) == 0
