"""`reactor watch URL ROOM`, in a pipe."""

import asyncio
import json
import sys
from typing import Any

import anyio
import pytest

from tests.servers import Server
from tests.system.running import RawClient, served


@pytest.mark.parametrize(("options", "named"), [(["--as", "eve"], True), ([], False)])
async def test_what_happens_in_a_room_is_one_json_line_each(
    bundled_server: Server, options: list[str], named: bool
) -> None:
    async with served(bundled_server) as node, RawClient.connect(node) as ann:
        await ann.join("lobby", "ann")
        url = f"ws://127.0.0.1:{node.gateway.port}/ws"
        command = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "reactor", "watch", url, "lobby", *options,
            stdout=asyncio.subprocess.PIPE, stdin=asyncio.subprocess.DEVNULL,
        )  # fmt: skip
        assert command.stdout is not None

        async def line() -> dict[str, Any]:
            assert command.stdout is not None
            with anyio.fail_after(15):
                told: dict[str, Any] = json.loads(await command.stdout.readline())
                return told

        try:
            first = await line()
            assert (first["kind"], first["count"]) == ("sync", 2 if named else 1)
            assert {member["userId"] for member in first["members"]} == ({"ann", "eve"} if named else {"ann"})
            async with RawClient.connect(node) as bob:
                await bob.join("lobby", "bob")
                joined = await line()
                assert (joined["kind"], joined["member"]["userId"]) == ("join", "bob")
                await bob.ask("leave_room", "room:left", roomId="lobby")
            left = await line()
            assert (left["kind"], left["member"]["userId"]) == ("leave", "bob")
            assert left.get("reason") == ("left" if named else None)
        finally:
            command.terminate()
            await command.wait()
