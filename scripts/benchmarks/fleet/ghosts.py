"""How long do the members of a killed node stand there? From SIGKILL to the last survivor's diff."""

import random
import time
from collections import Counter
from contextlib import AsyncExitStack
from typing import Any

import anyio

from scripts.benchmarks.fleet.clients import Crowd, crowd, until
from scripts.benchmarks.node import NodeProcess, node_process
from scripts.benchmarks.server import Bench

ROOM_SIZE = 10
LISTEN_ON = 3.0
"""Seconds after the last leave, in which one that is told twice would come."""
PATIENCE = 60.0


async def measure_ghosts(
    bench: Bench, *, members: int, rounds: int, settings: dict[str, Any]
) -> list[dict[str, Any]]:
    """Kill one node of two, so many times: by turns the one that has the pacemaker's turn, and the other."""
    common = {"redis_url": bench.url, "namespace": bench.namespace, "port": 0, **settings}
    results = []
    async with AsyncExitStack() as stack:
        nodes = [await stack.enter_async_context(node_process(common)) for _ in range(2)]
        for number in range(rounds):
            leading = [(await node.status())["leading"] for node in nodes]
            doomed = nodes.pop(leading.index(number % 2 == 0) if any(leading) else 0)
            results.append(await _one_round(doomed, nodes[0], members) | {"leading": number % 2 == 0})
            nodes.append(await stack.enter_async_context(node_process(common)))
    return results


async def _one_round(doomed: NodeProcess, living: NodeProcess, members: int) -> dict[str, Any]:
    async with crowd([doomed.port, living.port], members, ROOM_SIZE) as people:
        dead, survivors = people.people[::2], people.people[1::2]
        await anyio.sleep(random.uniform(1.0, 4.0))  # the end may come at any point of a lease
        for person in dead:
            person.give_up()
        people.forget()
        doomed.kill()
        killed = time.monotonic()
        expected = Counter(
            (person.user_id, ghost.user_id)
            for person in survivors
            for ghost in dead
            if ghost.room_id == person.room_id
        )
        await until(lambda: len(people.leaves) >= expected.total(), PATIENCE)
        await anyio.sleep(LISTEN_ON)
        return _outcome(people, expected, killed)


def _outcome(people: Crowd, expected: Counter[tuple[str, str]], killed: float) -> dict[str, Any]:
    told = Counter((one.by, one.user_id) for one in people.leaves)
    times = sorted(one.at - killed for one in people.leaves)
    return {
        "to_be_told": expected.total(),
        "told_once": sum(told[pair] == 1 for pair in expected),
        "told_wrongly": (told - expected).total(),
        "reasons": dict(Counter(one.reason for one in people.leaves)),
        "first_s": round(times[0], 2) if times else None,
        "last_s": round(times[-1], 2) if times else None,
        "wrong_joins": len(people.joins),
    }
