"""`reactor rooms`, `members`, `departures` and `doctor --plain`: what they select, and where they print."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from reactor.presence.api import Presence
from tests.support.command import reactor, reactor_in_terminal
from tests.support.nodes import served
from tests.support.raw_client import RawClient
from tests.support.servers import Server

ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


@asynccontextmanager
async def three_rooms(bundled_server: Server) -> AsyncIterator[str]:
    """The address of a Redis with three rooms."""
    async with (
        served(bundled_server, grace=0) as node,
        RawClient.connect(node) as ann,
        RawClient.connect(node) as bob,
    ):
        for room in ("game-1", "game-2", "lobby"):
            await ann.join(room, "ann", username="Ann\u00e9")
        await bob.join("lobby", "bob", username="\u6f22")
        await bob.ask("leave_room", "room:left", roomId="lobby")
        await bob.join("game-2", "bob")
        yield bundled_server.url


def rooms(url: str, *flags: str) -> list[tuple[str, int]]:
    return [(room["roomId"], room["count"]) for room in reactor("rooms", "--redis-url", url, *flags).lines]


async def test_rooms_are_selected_sorted_and_limited(bundled_server: Server) -> None:
    async with three_rooms(bundled_server) as url:
        everything = [("game-1", 1), ("game-2", 2), ("lobby", 1)]
        assert rooms(url) == [("game-2", 2), ("game-1", 1), ("lobby", 1)]
        assert rooms(url, "--sort", "name") == everything
        assert sorted(rooms(url, "--sort", "none")) == everything
        assert rooms(url, "--prefix", "game-", "--sort", "name") == everything[:2]
        assert rooms(url, "--limit", "1") == [("game-2", 2)]
        assert len(rooms(url, "--sort", "none", "--limit", "2")) == 2
        assert sorted(rooms(url, "--sort", "none", "--prefix", "game-")) == everything[:2]
        shown = reactor_in_terminal("rooms", "--redis-url", url, "--limit", "2").out
        assert "the first 2 of 3 rooms, 4 members" in shown
        wrong = reactor("rooms", "--redis-url", url, "--limit", "0")
        assert (wrong.code, wrong.err) == (2, "error: --limit takes a whole number from 1 on.\n")


async def test_a_room_without_members_is_reported_as_such(bundled_server: Server) -> None:
    async with three_rooms(bundled_server) as url:
        answer = reactor("members", "loby", "--redis-url", url)
        assert (answer.code, answer.out) == (0, "")
        assert answer.err == "note: loby has no members; `reactor rooms` lists the rooms that have.\n"


async def test_names_that_the_terminal_cannot_show_are_escaped(bundled_server: Server) -> None:
    async with three_rooms(bundled_server) as url:
        listed = reactor_in_terminal("departures", "--redis-url", url, **ASCII)
        assert listed.code == 0
        assert "\\u6f22" in listed.out
        assert "Ann\\xe9" in reactor_in_terminal("members", "lobby", "--redis-url", url, **ASCII).out


async def test_the_doctor_writes_one_plain_line_for_each_finding(bundled_server: Server) -> None:
    async with three_rooms(bundled_server) as url:
        answer = reactor_in_terminal("doctor", "--plain", "--redis-url", url)
        lines = answer.out.splitlines()
        assert answer.code in {0, 1}
        assert len(lines) > 10
        assert all(line.startswith(("ok: ", "note: ", "problem: ")) for line in lines)
        assert "\x1b" not in answer.out
        assert any("; fix: " in line for line in lines)


async def test_rooms_are_read_in_pages(bundled_server: Server) -> None:
    async with (
        served(bundled_server) as node,
        RawClient.connect(node) as ann,
        Presence.open(bundled_server.url) as presence,
    ):
        await ann.join("lobby", "ann")
        assert [(room.room_id, room.count) async for room in presence.scan_rooms()] == [("lobby", 1)]
