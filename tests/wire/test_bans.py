"""Bans and revoked tokens, as both clients meet them on a real server."""

import time
from typing import Any

import pytest

from reactor.presence.api import Presence
from tests.support.nodes import served
from tests.support.servers import Server
from tests.support.signing import SECRET, token
from tests.support.waiting import until
from tests.wire.programs import InJavaScript, InPython, Program

KINDS = pytest.mark.parametrize("kind", [InPython, InJavaScript], ids=["Python", "JavaScript"])


def issued(ago: float) -> str:
    return token(iat=int(time.time() - ago))


async def done(program: Program, command: str, *given: Any) -> tuple[str, Any]:
    """The outcome of a command."""
    program.outcomes.pop(command, None)
    await program.do(command, *given)
    await program.changes.until(lambda: command in program.outcomes)
    return program.outcomes[command]


@KINDS
async def test_a_client_is_out_for_as_long_as_its_user_is_banned(bundled_server: Server, kind: Any) -> None:
    async with (
        served(bundled_server, auth_secret=SECRET) as node,
        Presence.open(bundled_server.socket_url) as presence,
    ):
        url, options = f"ws://127.0.0.1:{node.gateway.port}/ws", {"token": issued(60)}
        async with kind.started(url, options) as program:
            assert await done(program, "join", {}) == ("done", None)
            await presence.ban("ann", for_=600, message="Be kind.")
            await program.changes.until(lambda: program.events[-1:] == ["status closed"])
            assert program.events == ["force-leave banned: Be kind.", "status closed"]
            await until(lambda: not node.gateway.connections)
        async with kind.started(url, options) as program:
            assert await done(program, "join", {}) == ("refused", "banned")
            assert node.ban_check.logins == 1
        assert await presence.unban("ann")
        await until(lambda: node.known_bans.find("ann") is None)
        async with kind.started(url, options) as program:
            assert await done(program, "join", {}) == ("done", None)


@KINDS
async def test_a_client_whose_token_is_revoked_asks_for_another_once(
    bundled_server: Server, kind: Any
) -> None:
    async with (
        served(bundled_server, auth_secret=SECRET) as node,
        Presence.open(bundled_server.socket_url) as presence,
    ):
        url = f"ws://127.0.0.1:{node.gateway.port}/ws"
        # A program that asks for a third token fails.
        async with kind.started(url, {"tokens": [issued(60), issued(0)]}) as program:
            assert await done(program, "join", {}) == ("done", None)
            first = node.roster.connections_of("lobby", "ann")
            await presence.revoke("ann", int(time.time() - 30) * 1000)
            await until(lambda: node.roster.connections_of("lobby", "ann") not in (first, ()))
            await program.changes.until(lambda: program.events[-1:] == ["status connected"])
            assert program.events == ["status reconnecting", "status connected"]
            assert await presence.is_present("lobby", "ann")


@KINDS
async def test_a_client_with_no_other_token_stops_when_it_is_revoked(
    bundled_server: Server, kind: Any
) -> None:
    async with (
        served(bundled_server, auth_secret=SECRET) as node,
        Presence.open(bundled_server.socket_url) as presence,
    ):
        url = f"ws://127.0.0.1:{node.gateway.port}/ws"
        async with kind.started(url, {"token": issued(60)}) as program:
            assert await done(program, "join", {}) == ("done", None)
            await presence.revoke("ann")
            await program.changes.until(lambda: "status closed" in program.events)
            await until(lambda: not node.gateway.connections)
            assert await done(program, "update", {"data": 1}) == ("refused", "closed")
