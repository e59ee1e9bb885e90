"""A JavaScript client behind a bad network: its events stay consistent, and are complete in the end."""

import asyncio
import json
import random
from typing import Any

import anyio
import pytest

from tests.js.tools import HERE, installed, node_program
from tests.support.nodes import served
from tests.support.proxy import Proxy
from tests.support.raw_client import RawClient
from tests.support.servers import Server
from tests.support.waiting import PATIENCE

_USERS = ["ann", "bob", "cy", "dee"]


async def _present(someone: RawClient) -> list[dict[str, Any]]:
    reply = await someone.answer("room:members", roomId="lobby")
    members = [
        {key: member[key] for key in ("userId", "away", "data") if key in member}
        for member in reply["members"]
    ]
    return sorted(members, key=lambda member: str(member["userId"]))


async def _something_happens(chance: random.Random, people: dict[str, RawClient], joined: set[str]) -> None:
    user = chance.choice(_USERS)
    if user not in joined:
        await people[user].join("lobby", user, data=chance.randrange(3))
        joined.add(user)
    elif chance.random() < 0.5:
        await people[user].answer("leave_room", roomId="lobby")
        joined.discard(user)
    else:
        await people[user].answer(chance.choice(["room:away", "room:back"]), roomId="lobby")


async def _the_network_fails(chance: random.Random, proxy: Proxy) -> None:
    match chance.choice(["cut", "cut", "withhold", "refuse", "none", "none", "none", "none"]):
        case "cut":
            proxy.cut()
        case "withhold":
            proxy.withhold()
        case "refuse":
            proxy.refuse = True
            proxy.cut()
        case _:
            proxy.release()
            proxy.refuse = False


@pytest.mark.parametrize("seed", [1, 2])
async def test_events_stay_consistent_through_cuts_and_stalls(bundled_server: Server, seed: int):
    installed()
    chance = random.Random(seed)
    async with (
        served(bundled_server, grace=30, messages_per_second=0) as node,
        Proxy.to(node.gateway.port) as proxy,
        RawClient.connect(node) as ann,
        RawClient.connect(node) as bob,
        RawClient.connect(node) as cy,
        RawClient.connect(node) as dee,
    ):
        people = dict(zip(_USERS, (ann, bob, cy, dee), strict=True))
        follower = await asyncio.create_subprocess_exec(
            node_program(), str(HERE / "follower.mjs"), f"ws://127.0.0.1:{proxy.port}/ws",
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        try:
            assert follower.stdin is not None
            assert follower.stdout is not None
            stdout, stdin = follower.stdout, follower.stdin

            async def line() -> str:
                with anyio.fail_after(PATIENCE):
                    return (await stdout.readline()).decode()

            assert await line() == "ready\n"
            joined: set[str] = set()
            for _ in range(80):
                await _the_network_fails(chance, proxy)
                for _ in range(chance.randrange(1, 4)):
                    await _something_happens(chance, people, joined)
                await asyncio.sleep(chance.random() * 0.06)
            proxy.release()
            proxy.refuse = False
            proxy.cut()
            expected = await _present(ann)
            with anyio.fail_after(PATIENCE):
                while True:
                    stdin.write(b"look\n")
                    seen = json.loads(await line())
                    if seen["members"] == expected and seen["status"] == "connected":
                        break
                    await asyncio.sleep(0.05)
            assert seen["received"] > 10
            stdin.close()
            with anyio.fail_after(PATIENCE):
                assert await follower.wait() == 0
        finally:
            if follower.returncode is None:
                follower.kill()
                await follower.wait()
