"""Who bans users while a schedule runs, and lifts some of the bans again."""

import asyncio
from contextlib import AsyncExitStack

from reactor import Presence
from reactor.errors import ReactorError
from tests.chaos.bans import IN_FLIGHT, BanAct, BanRecord, BanRecords
from tests.chaos.history import now_ms

RETRY = 0.1
"""Seconds until a call that failed is repeated."""
FOREVER = 600.0
"""Seconds of a ban that holds to the end of the schedule."""


class Moderator:
    """Makes the bans of a schedule, and lifts them."""

    def __init__(self, acts: tuple[BanAct, ...], records: BanRecords, url: str) -> None:
        self._acts, self._records, self._url = acts, records, url

    async def live(self, over: asyncio.Event) -> None:
        """Make the bans; return when the last has been made, or lifted."""
        async with AsyncExitStack() as stack:
            presence = await self._opened(stack)
            async with asyncio.TaskGroup() as tasks:
                for act in self._acts:
                    tasks.create_task(self._act(presence, act, over))

    async def _opened(self, stack: AsyncExitStack) -> Presence:
        while True:
            try:
                return await stack.enter_async_context(Presence.open(self._url))
            except ReactorError:
                await asyncio.sleep(RETRY)

    async def _act(self, presence: Presence, act: BanAct, over: asyncio.Event) -> None:
        began = asyncio.get_running_loop().time()
        await asyncio.sleep(act.at)
        record = BanRecord(act.user, act.room, now_ms())
        self._records.records.append(record)
        record.until = record.begun + round(act.seconds * 1000)
        while record.made is None and not over.is_set():
            try:
                ban = await presence.ban(act.user, act.room, for_=act.seconds)
            except ReactorError:
                # What a call that failed has stored may hold as long as one that succeeds now.
                record.until = now_ms() + round(act.seconds * 1000)
                await asyncio.sleep(RETRY)
            else:
                record.made, record.until = now_ms(), ban.until
        if act.seconds == FOREVER:
            return
        if act.lifted_at is not None:
            await asyncio.sleep(max(0.0, began + act.lifted_at - asyncio.get_running_loop().time()))
            record.ends = min(now_ms(), record.until)
            while not over.is_set():
                try:
                    await presence.unban(act.user, act.room)
                except ReactorError:
                    await asyncio.sleep(RETRY)
                else:
                    record.lifted = now_ms()
                    return
        else:
            record.ends = record.until - IN_FLIGHT
            await asyncio.sleep(max(0.0, (record.until - now_ms()) / 1000))
            record.lifted = record.until
