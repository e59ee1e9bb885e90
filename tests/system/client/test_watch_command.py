"""`reactor watch URL ROOM`, in a pipe and in a terminal."""

import asyncio
import json
import os
import pty
import re
import signal
import sys
from typing import Any

import anyio
import pytest

from tests.support.nodes import NodeProcess, served
from tests.support.raw_client import RawClient
from tests.support.servers import Server, free_port
from tests.support.waiting import PATIENCE


@pytest.mark.parametrize(("options", "named"), [(["--as", "eve"], True), ([], False)])
async def test_each_event_is_one_json_line(bundled_server: Server, options: list[str], named: bool) -> None:
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
            with anyio.fail_after(PATIENCE):
                printed: dict[str, Any] = json.loads(await command.stdout.readline())
                return printed

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


async def test_a_terminal_shows_a_live_table(bundled_server: Server) -> None:
    shown = ""
    async with served(bundled_server) as node, RawClient.connect(node) as ann:
        await ann.join("lobby", "ann", username="Ann B.", data={"mood": "blue"})
        url = f"ws://127.0.0.1:{node.gateway.port}/ws"
        ours, theirs = pty.openpty()
        command = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "reactor", "watch", url, "lobby", "--as", "eve",
            stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True,
            env={**os.environ, "TERM": "xterm", "COLUMNS": "100", "LINES": "30"},
        )  # fmt: skip
        os.close(theirs)

        async def sees(pattern: str) -> None:
            nonlocal shown
            with anyio.fail_after(PATIENCE):
                while not re.search(pattern, shown):
                    await anyio.wait_readable(ours)
                    shown += os.read(ours, 65536).decode()

        try:
            await sees(r"lobby: 2 here")
            await sees(r"Ann B\. +ann +\d\d:\d\d:\d\d +here +1 +\{\"mood\":\"blue\"\}")
            async with RawClient.connect(node) as bob:
                await bob.join("lobby", "bob")
                await sees(r"lobby: 3 here")
                await sees(r"\d\d:\d\d:\d\d  bob joined")
                await bob.ask("leave_room", "room:left", roomId="lobby")
            await sees(r"bob left \(left\)")
            await ann.send("room:away", roomId="lobby")
            await sees(r"ann +\d\d:\d\d:\d\d +away")
            command.send_signal(signal.SIGINT)
            await sees(r"\x1b\[\?25h")  # the cursor is shown again
            with anyio.fail_after(PATIENCE):
                assert await command.wait() in {0, 130}
            assert "Traceback" not in shown
        finally:
            if command.returncode is None:
                command.kill()
                await command.wait()
            os.close(ours)


@pytest.mark.parametrize("named", [True, False])
async def test_it_says_when_the_server_goes_and_when_it_is_back(bundled_server: Server, named: bool) -> None:
    port = free_port()
    options = ["--as", "eve"] if named else []
    async with NodeProcess.start(bundled_server, port=port) as node:
        command = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "reactor", "watch", f"ws://127.0.0.1:{port}/ws", "lobby", *options,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, stdin=asyncio.subprocess.DEVNULL,
        )  # fmt: skip
        assert command.stdout is not None
        assert command.stderr is not None
        with anyio.fail_after(PATIENCE):
            await command.stdout.readline()
        await node.kill()
        with anyio.fail_after(PATIENCE):
            lost = await command.stderr.readline()
    assert lost == b"note: the connection to the server is lost; trying again.\n"
    async with NodeProcess.start(bundled_server, port=port):
        with anyio.fail_after(PATIENCE):
            assert await command.stderr.readline() == b"note: the server is back.\n"
        command.terminate()
        await command.wait()


async def test_without_a_token_it_names_the_option_for_it(bundled_server: Server) -> None:
    async with served(bundled_server, auth_secret=b"a secret of the tests, as long as it has to be") as node:
        url = f"ws://127.0.0.1:{node.gateway.port}/ws"
        command = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "reactor", "watch", url, "lobby",
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
            env={name: value for name, value in os.environ.items() if not name.startswith("REACTOR_")},
        )  # fmt: skip
        with anyio.fail_after(PATIENCE):
            _, errors = await command.communicate()
    assert command.returncode == 1
    assert b"give it as --token or REACTOR_TOKEN" in errors
