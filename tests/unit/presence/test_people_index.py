"""What a node asks of Redis for its index of people when many members change at once."""

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from typing import Any, Literal

from reactor.errors import Unavailable
from reactor.presence.keys import Entry, Keyspace
from reactor.presence.people import Correction, InRoom
from reactor.presence.people_index import MAX_AWAY, PeopleIndex

HERE = InRoom(True, False, True, ("token",))


class FakeStore:
    """Replies to a call when released, with the members that the records lack; records the calls."""

    def __init__(self) -> None:
        self.keys = Keyspace("reactor", shards=1)
        self.corrections: list[list[Correction]] = []
        self.answers: list[asyncio.Future[list[Entry]]] = []
        self.reads: list[Entry] = []

    async def correct(self, corrections: Iterable[Correction]) -> list[Entry]:
        self.corrections.append(list(corrections))
        self.answers.append(asyncio.get_running_loop().create_future())
        return await self.answers[-1]

    async def memberships(
        self, entries: Iterable[Entry], _detail: Literal["tokens", "connections"]
    ) -> dict[Entry, InRoom]:
        found = dict.fromkeys(entries, HERE)
        self.reads += found
        return found


class Tasks:
    def __init__(self) -> None:
        self._all: list[asyncio.Task[Any]] = []

    def start_soon(self, func: Callable[..., Coroutine[Any, Any, Any]], /, *args: Any) -> None:
        self._all.append(asyncio.get_running_loop().create_task(func(*args)))

    @property
    def running(self) -> int:
        return sum(not task.done() for task in self._all)


def index_of(store: FakeStore) -> tuple[PeopleIndex, Tasks]:
    tasks = Tasks()
    return PeopleIndex(store, tasks, direct=True, keep=0, most_seen=1000), tasks  # type: ignore[arg-type]


async def turns() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_changes_of_away_wait_for_one_call_and_the_last_of_each_member_counts() -> None:
    store = FakeStore()
    index, tasks = index_of(store)
    members = [Entry(f"room {number}", "ann") for number in range(MAX_AWAY + 10)]
    for turn in range(9):
        for entry in members:
            index.set_away(entry, away=turn % 2 == 0)
        await turns()
    assert tasks.running == len(store.corrections) == 1
    while tasks.running:
        store.answers[-1].set_result([])
        await turns()
    assert {len(call) <= MAX_AWAY for call in store.corrections} == {True}
    assert len(store.corrections) <= 4
    last = {one.entry: one.away for call in store.corrections for one in call}
    assert last == dict.fromkeys(members, True)
    index.set_away(members[0], away=False)
    await turns()
    assert store.corrections[-1] == [Correction(members[0], False)]


async def test_a_change_that_did_not_reach_redis_is_compared_with_the_presence_key_once() -> None:
    store = FakeStore()
    index, tasks = index_of(store)
    ann = Entry("lobby", "ann")
    index.set_away(ann, away=False)
    await turns()
    store.answers[0].set_exception(Unavailable())
    await turns()
    assert store.reads == [ann]
    for _ in range(20):
        index.verify(ann)  # what was read may be old by now: it is read once more
    await turns()
    assert tasks.running == 1
    store.answers[1].set_result([])
    await turns()
    assert store.reads == [ann, ann]
    store.answers[2].set_result([])
    await turns()
    assert (store.reads, tasks.running) == ([ann, ann], 0)
    index.verify(ann)
    await turns()
    assert store.reads == [ann] * 3
