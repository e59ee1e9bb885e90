"""Watching people, and waiting for what the index of people says."""

import asyncio
from collections.abc import Awaitable, Callable

import anyio

from reactor.presence.api import PersonInfo
from reactor.presence.people import PersonRecord
from reactor.server.node import Node
from tests.support.raw_client import Message, RawClient
from tests.support.waiting import PATIENCE


async def until_record(node: Node, user_id: str, condition: Callable[[PersonRecord], bool]) -> PersonRecord:
    """What the index says of a user once that satisfies a condition."""
    with anyio.fail_after(PATIENCE):
        while True:
            record = (await node.people_store.records([user_id]))[user_id]
            if condition(record):
                return record
            await asyncio.sleep(0.02)  # nothing notifies of it


def statuses(client: RawClient, user_id: str) -> list[str]:
    """The statuses of a user that a client was sent as changes, in order."""
    return [
        person["status"]
        for diff in client.of("people:diff")
        for person in diff["changed"]
        if person["userId"] == user_id
    ]


async def until_person(
    ask: Callable[[], Awaitable[PersonInfo]], condition: Callable[[PersonInfo], bool]
) -> PersonInfo:
    """The first answer that satisfies a condition, asked again and again."""
    with anyio.fail_after(PATIENCE):
        while not condition(person := await ask()):  # noqa: ASYNC110 - nothing notifies of it
            await asyncio.sleep(0.02)
    return person


async def watch(client: RawClient, *user_ids: str) -> list[Message]:
    """Watch users; their present states."""
    reply = await client.ask("people:watch", "people:state", userIds=list(user_ids))
    people: list[Message] = reply["people"]
    return people
