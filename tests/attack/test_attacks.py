"""Each attack beside people who notice nothing of it."""

import asyncio
import json
import resource
import time
from pathlib import Path
from typing import Any

import jwt
import pytest

from tests.attack.scenario import ARENA, Field, field, processor_seconds, resident
from tests.support.raw_client import RawClient
from tests.support.servers import Server

SECRET = "what only this test and its server know of it"


def token(user: str) -> str:
    return jwt.encode({"sub": user, "exp": time.time() + 600, "rooms": [ARENA]}, SECRET, algorithm="HS256")


ATTACKS: dict[str, tuple[dict[str, Any], Any]] = {
    "slow_handshakes": ({}, lambda met: met["cut off"] + met.get("ConnectionResetError", 0) > 100),
    "silence": ({}, lambda met: met["cut off"] + met.get("ConnectionResetError", 0) > 100),
    "connections": ({}, lambda met: met["http 429"] > 30),
    "messages": ({}, lambda met: met["closed 4029"] > 10 and met["too_many_requests"] > 100),
    "joins": ({}, lambda met: met["closed 4029"] > 5 and met["too_many_requests"] > 50),
    "pings": ({}, lambda met: met["closed 4029"] > 10),
    "fragments": ({}, lambda met: met["closed 1008"] > 10),
    "half_messages": ({}, lambda met: met["opened"] > 50),
    "bombs": ({"compression": True}, lambda met: met["closed 1009"] > 10),
    "garbage": ({}, lambda met: met["opened"] > 10 and met.get("closed 1002", 0) > 10),
    "strange_words": ({}, lambda met: met["bad_id"] > 20 and met.get("closed 1009", 0) >= 0),
    "deafness": ({}, lambda met: met["sent"] > 50),
    "tokens": ({"auth_secret": SECRET}, lambda met: met["http 401"] > 5 and met["closed 4001"] > 5),
}


ALWAYS = {"silence", "messages", "joins", "garbage", "strange_words"}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name in ALWAYS else pytest.mark.slow) for name in ATTACKS]
)
async def test_an_attack_does_not_affect_other_clients(bundled_server: Server, name: str):
    options, happened = ATTACKS[name]
    async with field(bundled_server, token if name == "tokens" else None, **options) as there:
        met = await there.attacked(name)
        assert happened(met), met


async def test_unresponsive_connections_are_removed(bundled_server: Server):
    async with field(bundled_server, ping_interval=0.5, ping_timeout=0.5, grace=0.5) as there:
        met = await there.attacked("half_open", seconds=4)
        assert met["cut off"] > 20
        await members_are(there, len(there.people))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["silence", "slow_handshakes", "connections"])
async def test_an_attack_from_many_addresses_affects_no_client(bundled_server: Server, name: str):
    async with field(bundled_server, max_connections=100) as there:
        met = await there.attacked(name, addresses=5000)
        assert sum(met.get(what, 0) for what in ("opened", "cut off", "ConnectionResetError")) > 100, met
        async with RawClient.connect(there.server) as late:
            await late.join(ARENA, "late")


@pytest.mark.slow
async def test_memory_does_not_grow_from_attack_to_attack(bundled_server: Server):
    async with field(bundled_server) as there:
        sizes = []
        for _ in range(3):
            for name in ("messages", "half_messages", "strange_words"):
                await there.attacked(name, seconds=1.5)
            sizes.append(resident(there.pid))
        assert sizes[2] - sizes[1] < 6_000_000, sizes


async def test_out_of_file_descriptors_open_connections_stay(bundled_server: Server):
    async with field(bundled_server, max_connections=1_000_000, open_timeout=20) as there:
        files = len(list(Path(f"/proc/{there.pid}/fd").iterdir()))
        resource.prlimit(there.pid, resource.RLIMIT_NOFILE, (files + 20, files + 20))
        before = processor_seconds(there.pid)
        met = await there.attacked("silence", seconds=3, addresses=5000)
        assert met["tried"] > 100
        # Each that is turned away comes again at once; the server must not spin by itself.
        assert processor_seconds(there.pid) - before < 2.5
        await asyncio.sleep(0.3)  # the last of the attacker's sockets are put away
        idle = processor_seconds(there.pid)
        await asyncio.sleep(0.5)
        assert processor_seconds(there.pid) - idle < 0.25
        async with RawClient.connect(there.server) as late:
            await late.join(ARENA, "late")


async def members_are(there: Field, number: int) -> None:
    client = there.people[0].client
    deadline = time.monotonic() + 10
    while (said := await client.answer("room:count", roomId=ARENA))["count"] != number:
        assert time.monotonic() < deadline, json.dumps(said)
        await asyncio.sleep(0.25)
