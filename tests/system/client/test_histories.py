"""Random histories of one user with two devices, held to a model: what was accepted last is what is shown.

One device, the desk, loses its connection at random messages, before or after they arrive. The model knows
which changes were accepted: a change is made between its call and its return, which for one that is made
offline is after the return of the device. The last one is shown to all; where those of both devices overlap,
either is. A change that is refused, or cannot be sent, is seen by no one. A user who is kicked or has left
stays out until the next join, and one who is banned until the ban is lifted. For who watches the user, the
user is online once the devices are back, and offline after they are closed.
"""

import asyncio
import math
import random
import time
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import pytest

from reactor import Client, ForceLeave, Presence, Refused, Room, Status, WatchedPeople
from reactor.client import open_connection, reconnector
from reactor.presence.keys import Entry
from reactor.server.node import Node
from tests.support.nodes import served
from tests.support.servers import Server
from tests.support.waiting import PATIENCE, until
from tests.system.client.clients import RoomRecorder, client_of, ended
from tests.system.client.lossy import Lossy

STEPS = 14
AT_A_TIME = 8
TOO_BIG = "x" * 300  # for the server; the desk does not know its limits


class Write:
    """A change that is under way; `end` is when it was accepted."""

    def __init__(self, value: str, work: Awaitable[None]) -> None:
        self.value = value
        self.start = time.monotonic()
        self.end = math.inf
        self.done = asyncio.ensure_future(work)
        self.done.add_done_callback(lambda _: setattr(self, "end", time.monotonic()))


class History:
    """One history: `live` draws its steps, and `settle` compares everyone's view with the model."""

    def __init__(
        self,
        node: Node,
        presence: Presence,
        line: Lossy,
        seed: int,
        clients: tuple[Client, Client, Client],
    ) -> None:
        self.node, self.presence, self.line = node, presence, line
        self.desk, self.phone, self.other = clients
        self.room_id, self.hall_id, self.user = f"room {seed}", f"hall {seed}", f"ann {seed}"
        self.draw = random.Random(seed)
        self.log: list[str] = []
        self.value: str | None = None  # as of the last time that all was settled; None where it is not known
        self.number = 0
        self.writes: list[Write] = []  # of the desk, since then
        self.phone_wrote: Write | None = None
        self.marks: list[asyncio.Future[None]] = []
        self.rooms: dict[str, Room] = {}
        self.views: dict[str, RoomRecorder] = {}
        self.hall: Room
        self.people: WatchedPeople

    # The steps.

    async def live(self) -> None:
        self.people = await self.other.people([self.user])
        self.views["other"] = RoomRecorder(await self.other.join(self.room_id, user_id="other"))
        self.hall = await self.desk.join(self.hall_id, user_id=self.user, data="hall")
        await self.both_join()
        steps: dict[Callable[[], Awaitable[None]], int] = {
            self.desk_changes: 6, self.phone_changes: 4, self.desk_is_refused: 3,
            self.desk_cannot_send: 1, self.desk_loses_a_message: 5, self.desk_is_cut: 2,
            self.desk_goes_offline: 2, self.desk_is_away: 1, self.clock_jumps: 1, self.settle: 3,
            self.is_kicked: 1, self.is_banned: 1, self.desk_leaves: 1,
        }  # fmt: skip
        for step in self.draw.choices(list(steps), list(steps.values()), k=STEPS):
            self.log.append(step.__name__)
            await step()
            if self.draw.random() < 0.5:
                await anyio.sleep(self.draw.random() * 0.02)
        await self.settle()

    async def both_join(self) -> None:
        self.value = self.fresh()
        await self.desk_joins(self.value)
        self.rooms["phone"] = await self.phone.join(self.room_id, user_id=self.user)
        self.views["phone"] = RoomRecorder(self.rooms["phone"])

    async def desk_joins(self, *data: Any) -> None:
        view = self.draw.choice(["members", "members", "count"])
        given = {"data": data[0]} if data else {}
        self.rooms["desk"] = await self.desk.join(self.room_id, user_id=self.user, view=view, **given)  # type: ignore[arg-type]

    async def desk_changes(self) -> None:
        self.writes.append(Write(value := self.fresh(), self.rooms["desk"].update(value)))

    async def desk_is_refused(self) -> None:
        self.writes.append(Write(value := TOO_BIG + self.fresh(), self.rooms["desk"].update(value)))

    async def desk_is_away(self) -> None:
        room = self.rooms["desk"]
        self.marks.append(asyncio.ensure_future(room.away() if self.draw.random() < 0.5 else room.back()))

    async def desk_cannot_send(self) -> None:
        for wrong in ({object()}, "\ud83d", 2**70):
            with pytest.raises(Refused, match=r"^data"):
                await self.rooms["desk"].update(wrong)

    async def phone_changes(self) -> None:
        self.phone_wrote = Write(value := self.fresh(), self.rooms["phone"].update(value))
        await self.phone_wrote.done

    async def desk_loses_a_message(self) -> None:
        self.line.passes_last = self.draw.random() < 0.5
        self.line.fuse = self.draw.randint(1, 6)

    async def desk_is_cut(self) -> None:
        self.line.cut()

    async def desk_goes_offline(self) -> None:
        self.line.refuse = True
        self.line.cut()

    async def clock_jumps(self) -> None:
        Clock.ahead = self.draw.choice([-3600.0, -30.0, 0.0, 30.0, 3600.0])

    async def is_kicked(self) -> None:
        await self.node.store.kick(Entry(self.room_id, self.user), "Out.")
        await self.is_removed("kicked")
        assert not await self.other.is_present(self.room_id, self.user), "it returned by itself"
        await self.both_join()

    async def is_banned(self) -> None:
        await self.presence.ban(self.user, self.room_id, for_="1h", message="Out.")
        lifted = self.draw.random() < 0.5
        if lifted:
            # The desk may be back only now, and learns of the removal all the same.
            await self.presence.unban(self.user, self.room_id)
        await self.is_removed("banned")
        assert not await self.other.is_present(self.room_id, self.user), "it returned by itself"
        if not lifted:
            with pytest.raises(Refused) as refused:
                await self.desk.join(self.room_id, user_id=self.user)
            assert refused.value.code == "banned"
            await self.presence.unban(self.user, self.room_id)
        await self.both_join()

    async def is_removed(self, reason: str) -> None:
        self.line.refuse, self.line.fuse = False, math.inf
        for room in self.rooms.values():
            end = await ended(room)
            assert isinstance(end, ForceLeave), end
            assert (end.reason, end.message) == (reason, "Out.")
        await asyncio.gather(*(write.done for write in self.writes), *self.marks, return_exceptions=True)
        self.forget_writes()
        await self.until_connected(self.hall)

    async def desk_leaves(self) -> None:
        await self.rooms["desk"].leave()
        await asyncio.gather(*(write.done for write in self.writes), *self.marks, return_exceptions=True)
        self.line.refuse, self.line.fuse = False, math.inf
        if self.draw.random() < 0.5:
            await self.until_connected(self.hall)
        await self.desk_joins()
        if self.writes:
            self.forget_writes()  # whether they were accepted before the leave is not known
        self.marks.clear()

    # The model.

    def fresh(self) -> str:
        self.number += 1
        return f"value {self.number}"

    def forget_writes(self) -> None:
        self.value, self.phone_wrote = None, None
        self.writes.clear()
        self.marks.clear()

    async def possible_values(self) -> set[str | None]:
        """What may be shown, once all changes under way are answered."""
        last: Write | None = None
        for write in self.writes:
            try:
                await write.done
            except Refused as error:
                if not write.value.startswith(TOO_BIG) or error.code != "data_too_big":
                    raise
            else:
                last = write
        await asyncio.gather(*self.marks)
        phone = self.phone_wrote
        if last is None or phone is None:
            only = last or phone
            return {self.value if only is None else only.value}
        overlap = last.start < phone.end and phone.start < last.end
        return {last.value, phone.value} if overlap else {max(last, phone, key=lambda one: one.end).value}

    async def settle(self) -> None:
        self.line.refuse, self.line.fuse = False, math.inf
        await self.until_connected(self.hall)
        possible = await self.possible_values()
        await self.until_connected(self.rooms["desk"])
        (ann,) = [one for one in await self.other.members(self.room_id) if one.user_id == self.user]
        assert ann.data in possible or possible == {None}, f"{ann.data} and not {possible}"
        self.forget_writes()
        self.value = ann.data
        views = [*self.views.values()]
        if self.rooms["desk"].view == "members":
            views.append(RoomRecorder(self.rooms["desk"]))
        for view in views:
            await view.until_member(self.user, data=self.value)
        if self.rooms["desk"].view == "members":
            with anyio.fail_after(PATIENCE):
                while as_seen(self.rooms["desk"]) != as_seen(self.views["other"].room):  # noqa: ASYNC110
                    await anyio.sleep(0.002)
        seen = [str(event.member.data) for event in self.views["other"].events if event.member is not None]
        assert not [data for data in seen if data.startswith(TOO_BIG)]
        assert self.hall.me is not None
        assert self.hall.me.data == "hall"
        await self.until_person("online")

    async def until_person(self, status: str) -> None:
        await until(lambda: (person := self.people.get(self.user)) and person.status == status)

    async def until_connected(self, room: Room) -> None:
        with anyio.fail_after(PATIENCE):
            while room.status is not Status.CONNECTED:
                assert room.status is not Status.CLOSED, await room.ended()
                await anyio.sleep(0.002)


def as_seen(room: Room) -> set[tuple[str, str, str, int, bool, int]]:
    """The members of a room, without what is no change."""
    return {
        (one.user_id, one.username, str(one.data), one.joined_at, one.away, one.connections)
        for one in room.members.values()
    }


class Clock:
    """The wall clock of the clients' machine."""

    ahead = 0.0

    @classmethod
    def time(cls) -> float:
        return time.time() + cls.ahead


async def run(node: Node, presence: Presence, seed: int) -> None:
    async with (
        Lossy.before(node) as line,
        client_of(line.port, request_timeout=PATIENCE, heartbeat_interval=0.1) as desk,
        client_of(node) as phone,
        client_of(node) as other,
    ):
        history = History(node, presence, line, seed, (desk, phone, other))
        try:
            with anyio.fail_after(2 * PATIENCE):
                await history.live()
                # A desk that has not noticed a cut yet could not leave: this is answered after its return.
                await desk.count(history.hall_id)
                await history.settle()
                await desk.close()
                await phone.close()
                await history.until_person("offline")
        except BaseException as error:
            error.add_note(f"seed {seed}: {', '.join(history.log)}; value {history.value}")
            raise


async def run_all(server: Server, seeds: range, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (open_connection, reconnector):
        monkeypatch.setattr(module, "time", Clock.time)
    limiter = anyio.Semaphore(AT_A_TIME)

    async def limited(node: Node, presence: Presence, seed: int) -> None:
        async with limiter:
            await run(node, presence, seed)

    async with (
        served(server, grace=60, away_grace=60, max_data=200) as node,
        Presence.open(server.socket_url) as presence,
        anyio.create_task_group() as tasks,
    ):
        for seed in seeds:
            tasks.start_soon(limited, node, presence, seed)
    assert node.feed.recent.results["diffs"] > len(seeds)


@pytest.mark.timeout(180)
async def test_random_histories_of_two_devices(bundled_server: Server, monkeypatch):
    await run_all(bundled_server, range(24), monkeypatch)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("part", range(8))
async def test_two_thousand_random_histories_of_two_devices(bundled_server: Server, monkeypatch, part):
    await run_all(bundled_server, range(1000 + part * 245, 1000 + (part + 1) * 245), monkeypatch)
