"""Both clients hold to one model: random histories of one user on two devices, on a real server.

One device runs the JavaScript client, the other the Python client. Connections are lost and return, data is
changed with and without them, and the user leaves, is kicked or is banned while a device is away.
"""

import asyncio
import json
import random
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

from reactor.presence.api import Presence
from reactor.server.node import Node
from tests.js.tools import installed
from tests.support import redis_state
from tests.support.nodes import served
from tests.support.proxy import Proxy
from tests.support.servers import Server
from tests.support.waiting import PATIENCE, until
from tests.wire.programs import InJavaScript, InPython, Program

_STEPS = 25
_TOO_BIG = "x" * 5000


@dataclass
class Device:
    """A client behind a network that can be cut, and what the model knows of it."""

    name: str
    program: Program
    proxy: Proxy
    online: bool = True
    joined: bool = False
    kicked: bool = False
    """Whether the user was removed while this device was in the room without a connection."""
    leaves: bool = False
    """Whether it has left without a connection."""
    confirmed: Any = None
    pending: list[Any] = field(default_factory=list)

    async def outcome(self, command: str, given: Any) -> tuple[str, Any]:
        """Do this, and wait for its end."""
        self.program.outcomes.pop(command, None)
        await self.program.do(command, given)
        await self.program.changes.until(lambda: command in self.program.outcomes)
        return self.program.outcomes[command]


class History:
    """Random steps of two devices of a user; `present` and `data` are the member as the model has it."""

    def __init__(
        self, chance: random.Random, server: Server, node: Node, presence: Presence, devices: list[Device]
    ) -> None:
        self._chance = chance
        self._node = node
        self._server = server
        self._presence = presence
        self._devices = devices
        self.steps: list[str] = []
        self._values = 0
        self.user = f"user {chance.randrange(10**9)}"
        self.present = False
        self.data: Any = None

    async def step(self) -> None:
        device = self._chance.choice(self._devices)
        moves = [self._update, self._update, self._leave, self._cut if device.online else self._return]
        if not device.joined:
            moves = [self._join if device.online else self._return]
        move = self._chance.choice(moves)
        if self.present and self._chance.random() < 0.15:
            move = self._ban if self._chance.random() < 0.3 else self._kick
        self.steps.append(f"{device.name} {move.__name__.strip('_')}")
        await move(device)
        await self._agrees()

    async def end(self) -> None:
        """Bring all devices back, and leave."""
        for device in self._devices:
            if not device.online:
                self.steps.append(f"{device.name} return, at the end")
                await self._return(device)
                await self._agrees()
        for device in self._devices:
            if device.joined:
                self._leave_now(device)
                await device.program.do("leave")
                await self._agrees()

    # What happens. Each changes the model, and then the world.

    def _value(self) -> int:
        self._values += 1
        return self._values

    def _write(self, data: Any) -> None:
        self.present, self.data = True, data
        for device in self._devices:
            if device.online and device.joined:
                device.confirmed = data

    async def _join(self, device: Device) -> None:
        device.joined, device.pending = True, []
        self._write(self._value())
        await device.program.do("join", {"userId": self.user, "data": self.data})

    async def _update(self, device: Device) -> None:
        if self._chance.random() < 0.2:
            await self._refused(device)
            return
        value = self._value()
        if device.online:
            self._write(value)
        else:
            device.pending.append(value)
        await device.program.do("update", {"data": value})

    async def _refused(self, device: Device) -> None:
        assert await device.outcome("update", {"data": _TOO_BIG}) == ("refused", "too_big")

    async def _leave(self, device: Device) -> None:
        if device.online:
            self._leave_now(device)
        else:
            device.joined, device.pending = False, []
            device.leaves = not device.kicked
            device.kicked = False
        await device.program.do("leave")

    def _leave_now(self, device: Device) -> None:
        """The member leaves with its last connection."""
        device.joined = False
        self.present = any(other.online and other.joined for other in self._devices)

    async def _cut(self, device: Device) -> None:
        device.online = False
        device.proxy.refuse = True
        device.proxy.cut()
        if device.joined:
            await self._shows(device, "reconnecting")

    async def _return(self, device: Device) -> None:
        device.online = True
        leaves, version = device.leaves, await self._version()
        if leaves:
            device.leaves = False
            self._leave_now(device)
        elif device.kicked:
            device.joined = device.kicked = False
        elif device.joined:
            if not self.present:
                self._write(device.confirmed)
            if device.pending:
                self._write(device.pending[-1])
        device.confirmed, device.pending = self.data, []
        device.proxy.refuse = False
        while leaves and self.present and await self._version() < version + 2:  # noqa: ASYNC110
            await asyncio.sleep(0.01)  # It returns and then leaves; no event of the client's says so.

    async def _kick(self, device: Device) -> None:
        self._out()
        assert await self._presence.kick("lobby", self.user, "Out.")

    async def _ban(self, device: Device) -> None:
        """A device that is connected tries in vain to join; the ban is lifted before the others are."""
        self._out()
        await self._presence.ban(self.user, "lobby", for_="1h", message="Out.")
        for other in self._devices:
            if other.online:
                await self._shows(other, "closed")
                assert await other.outcome("join", {"userId": self.user}) == ("refused", "banned")
        assert await self._presence.unban(self.user, "lobby")
        await until(lambda: not self._node.known_bans.find(self.user, "lobby"))

    def _out(self) -> None:
        """The user is removed: a device without a connection learns of it as it returns."""
        for device in self._devices:
            if device.online:
                device.joined = False
            else:
                device.kicked = device.kicked or device.joined
                device.leaves = False
        self.present = False

    # What must hold after each step.

    async def _agrees(self) -> None:
        model = self.present, self.data if self.present else None
        await until(lambda: self._stored() == model, what=f"present, data: {model}")
        connected = sum(device.online and device.joined for device in self._devices)
        await until(lambda: self._connections() == connected, what=f"{connected} connections")
        for device in self._devices:
            if device.online:
                await self._shows(device, "connected" if device.joined else "closed")

    def _stored(self) -> tuple[bool, Any]:
        fields = redis_state.members(self._server, "lobby").get(self.user)
        return fields is not None, json.loads(fields["data"]) if fields else None

    def _connections(self) -> int:
        """How many connections of the user Redis has."""
        fields: Any = self._server.control.hgetall(redis_state.shadow_key("lobby", self.user))
        return sum("." in name for name in fields)

    async def _version(self) -> int:
        return (await self._node.store.members("lobby")).position.version

    async def _shows(self, device: Device, status: str) -> None:
        deadline = time.monotonic() + PATIENCE
        while (found := (await device.program.look()).get("status", "closed")) != status:
            assert time.monotonic() < deadline, f"{device.name} is {found}, not {status}"
            await asyncio.sleep(0.01)


@asynccontextmanager
async def _device(name: str, kind: Any, port: int) -> AsyncIterator[Device]:
    async with Proxy.to(port) as proxy, kind.started(f"ws://127.0.0.1:{proxy.port}/ws", {}) as program:
        yield Device(name, program, proxy)


async def _run(server: Server, seed: int, histories: int) -> None:
    installed()
    settings: dict[str, Any] = {"grace": 300, "messages_per_second": 0}
    async with (
        served(server, **settings) as node,
        Presence.open(server.socket_url) as presence,
        _device("JavaScript", InJavaScript, node.gateway.port) as tab,
        _device("Python", InPython, node.gateway.port) as phone,
    ):
        for number in range(seed, seed + histories):
            history = History(random.Random(number), server, node, presence, [tab, phone])
            try:
                for _ in range(_STEPS):
                    await history.step()
                await history.end()
            except BaseException as error:
                error.add_note(f"seed {number}: {history.steps}")
                raise


async def test_two_devices_hold_to_one_model(bundled_server: Server):
    await _run(bundled_server, seed=1, histories=6)


@pytest.mark.slow
@pytest.mark.timeout(900)
async def test_two_devices_hold_to_one_model_in_many_histories(bundled_server: Server):
    await _run(bundled_server, seed=1000, histories=150)
