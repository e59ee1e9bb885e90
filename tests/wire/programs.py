"""Programs that use a client, in Python and in JavaScript: they execute commands and record events."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Protocol

import anyio
import msgspec

from reactor.client import Backoff, Client, Room, WatchedPeople, WatchedRoom
from reactor.errors import ConnectionClosed, ForceLeave, NotJoined, ReactorError, RoomFull, Unavailable
from reactor.protocol.events import RoomEvent
from reactor.protocol.messages import Person
from tests.js.tools import HERE, installed, node_program
from tests.support.waiting import PATIENCE, Changes

_CODES: dict[type[ReactorError], str] = {
    ConnectionClosed: "closed",
    ForceLeave: "force-leave",
    NotJoined: "not_joined",
    RoomFull: "room_full",
    Unavailable: "unavailable",
}


class Program(Protocol):
    """`events`: the events of its room, in short; `outcomes`: the outcome of each command, by name."""

    events: list[str]
    outcomes: dict[str, tuple[str, Any]]
    changes: Changes

    async def do(self, command: str, *given: Any) -> None: ...
    async def look(self) -> dict[str, Any]: ...


class InPython:
    def __init__(self) -> None:
        self.events: list[str] = []
        self.outcomes: dict[str, tuple[str, Any]] = {}
        self.changes = Changes()
        self._client: asyncio.Future[Client] = asyncio.get_running_loop().create_future()
        self._tasks: list[asyncio.Task[None]] = []
        self._ending = asyncio.Event()
        self._room: Room | None = None
        self._watched: WatchedRoom | None = None
        self._people_watched: WatchedPeople | None = None

    @classmethod
    @asynccontextmanager
    async def started(cls, url: str, options: dict[str, Any]) -> AsyncIterator["InPython"]:
        program = cls()
        token = options.get("token")
        if "tokens" in options:
            left = list(options["tokens"])
            token = lambda: left.pop(0)  # noqa: E731 - as a program would write it
        client = Client(url, token=token, backoff=Backoff(first=0.02, cap=0.2, restart=0.02))
        living = asyncio.create_task(program._live(client))
        try:
            yield program
        finally:
            program._ending.set()
            for task in program._tasks:
                task.cancel()
            await asyncio.gather(living, *program._tasks, return_exceptions=True)

    async def _live(self, client: Client) -> None:
        try:
            async with client:
                self._client.set_result(client)
                await self._ending.wait()
                await client.close(leave=False)
        except ReactorError as error:
            self._client.set_exception(error)

    async def do(self, command: str, *given: Any) -> None:
        self._tasks.append(asyncio.create_task(self._do(command, given)))

    async def _do(self, command: str, given: tuple[Any, ...]) -> None:
        try:
            result = await getattr(self, f"_{command}")(*given)
        except ReactorError as error:
            self.outcomes[command] = "refused", getattr(error, "code", None)
            if type(error) in _CODES:
                self.outcomes[command] = "refused", _CODES[type(error)]
        else:
            self.outcomes[command] = "done", result
        self.changes.notify()

    async def _join(self, user: dict[str, Any]) -> None:
        client = await self._client
        names = {"userId": "user_id"}
        room = await client.join("lobby", **{names.get(name, name): value for name, value in user.items()})
        if room != self._room:
            self._listen(room)

    async def _online(self, user: dict[str, Any]) -> None:
        self._listen(await (await self._client).online(user["userId"]))

    def _listen(self, room: Room) -> None:
        self._room = room
        self._listen_to_members(room)
        room.on(
            "message", lambda message: self._record(f"message {msgspec.json.encode(message.data).decode()}")
        )
        room.on("force-leave", lambda error: self._record(f"force-leave {error.reason}: {error.message}"))

    def _listen_to_members(self, room: Room | WatchedRoom) -> None:
        for kind in ("join", "leave", "update", "sync"):
            room.on(kind, self._on_event)
        room.on("status", lambda status: self._record(f"status {status}"))

    async def _watch(self, options: dict[str, Any]) -> None:
        self._watched = await (await self._client).watch("lobby", **options)
        self._listen_to_members(self._watched)

    async def _people(self, user_ids: list[str]) -> list[str]:
        people = self._people_watched = await (await self._client).people(user_ids)
        people.on("change", lambda changed: self._record(", ".join(map(_short, changed))))
        people.on("status", lambda status: self._record(f"status {status}"))
        return [_short(people.people[user_id]) for user_id in people.ids]

    async def _remove(self, user_ids: list[str]) -> None:
        assert self._people_watched is not None
        self._people_watched.remove(user_ids)

    def _on_event(self, event: RoomEvent) -> None:
        user = [event.member.user_id] if event.member else [str(event.count)]
        self._record(" ".join([event.kind, *user, *([event.reason] if event.reason else [])]))

    def _record(self, line: str) -> None:
        self.events.append(line)
        self.changes.notify()

    def _update(self, change: dict[str, Any]) -> Awaitable[None]:
        assert self._room is not None
        return self._room.update(**change)

    def _patch(self, patch: dict[str, Any]) -> Awaitable[None]:
        assert self._room is not None
        return self._room.patch(patch)

    def _send(self, data: Any, to: list[str] | None = None) -> Awaitable[None]:
        assert self._room is not None
        return self._room.send(data, to=to)

    def _away(self) -> Awaitable[None]:
        assert self._room is not None
        return self._room.away()

    def _back(self) -> Awaitable[None]:
        assert self._room is not None
        return self._room.back()

    def _leave(self) -> Awaitable[None]:
        assert self._room is not None
        return self._room.leave()

    async def _count(self, room_id: str) -> int:
        return await (await self._client).count(room_id)

    async def _members(self, room_id: str) -> list[str]:
        return sorted(member.user_id for member in await (await self._client).members(room_id))

    async def _isPresent(self, room_id: str, user_id: str) -> bool:  # noqa: N802 - the command's name
        return await (await self._client).is_present(room_id, user_id)

    async def look(self) -> dict[str, Any]:
        for _ in range(10):
            await asyncio.sleep(0)
        room = self._room
        shown = room or self._watched
        if shown is None:
            return {}
        return {
            "members": sorted(shown.members),
            "others": sorted(member.user_id for member in room.others) if room else [],
            "count": shown.count,
            "view": shown.view,
            "status": str(shown.status),
            "me": room.me.username if room and room.me else None,
        }


def _short(person: Person) -> str:
    return " ".join([person.user_id, person.status, *(["seen"] if person.last_seen else [])])


class InJavaScript:
    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.events: list[str] = []
        self.outcomes: dict[str, tuple[str, Any]] = {}
        self.changes = Changes()
        self._process = process
        self._looks: list[dict[str, Any]] = []

    @classmethod
    @asynccontextmanager
    async def started(cls, url: str, options: dict[str, Any]) -> AsyncIterator["InJavaScript"]:
        installed()
        process = await asyncio.create_subprocess_exec(
            node_program(), str(Path(HERE) / "program.mjs"), url, json.dumps(options),
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        program = cls(process)
        reading = asyncio.create_task(program._read())
        try:
            yield program
            assert process.stdin is not None
            process.stdin.close()
            with anyio.fail_after(PATIENCE):
                # No timer and no socket is left, or it would go on.
                assert await process.wait() == 0
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
            await reading

    async def _read(self) -> None:
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            output = json.loads(line)
            if "event" in output:
                self.events.append(output["event"])
            elif "looked" in output:
                self._looks.append(output["looked"])
            elif "done" in output:
                self.outcomes[output["done"]] = "done", output.get("with")
            else:
                self.outcomes[output["refused"]] = "refused", output.get("code", output)
            self.changes.notify()

    async def _send(self, *line: Any) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(line).encode() + b"\n")
        await self._process.stdin.drain()

    async def do(self, command: str, *given: Any) -> None:
        await self._send(command, *given)

    async def look(self) -> dict[str, Any]:
        seen = len(self._looks)
        await self._send("look")
        await self.changes.until(lambda: len(self._looks) > seen)
        return self._looks[-1]
