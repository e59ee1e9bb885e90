"""People on Sentinel sets, where joins and leaves change the index themselves, and on clusters."""

from functools import partial

from tests.fleet.serving import serving
from tests.support.people import statuses, until_record, watch
from tests.support.raw_client import RawClient
from tests.support.server_sets import ServerSet

USERS = [f"user {number}" for number in range(8)]


def was_sent(watcher: RawClient, user: str, *expected: str) -> bool:
    return statuses(watcher, user) == list(expected)


async def test_each_going_online_and_offline_is_one_change_wherever_the_record_is(fleet: ServerSet) -> None:
    async with (
        serving(fleet, grace=0.5) as one,
        serving(fleet, grace=0.5) as two,
        RawClient.connect(two) as watcher,
    ):
        await watch(watcher, *USERS)
        clients = [RawClient.connect(one) for _ in USERS]
        for number, (user, connecting) in enumerate(zip(USERS, clients, strict=True)):
            async with connecting as client:
                for room in ("lobby", "hall"):
                    await client.join(room, user)
                record = await until_record(one, user, lambda record: len(record.counted) == 2)
                assert (record.status, record.joining) == ("online", frozenset())
                await watcher.until(partial(was_sent, watcher, user, "online"))
                if number % 2:  # or else the socket is lost
                    for room in ("lobby", "hall"):
                        await client.ask("leave_room", "room:left", roomId=room)
        for user in USERS:
            await watcher.until(partial(was_sent, watcher, user, "online", "offline"))
            assert not (await until_record(one, user, lambda record: not record.rooms)).joining
        assert one.people.index.repaired == two.people.index.repaired == 0
