"""Draws a schedule from a seed: the servers, the nodes, the script of each client, and the faults."""

import random
from dataclasses import dataclass

from tests.chaos import faults, faults_redis
from tests.chaos.client import Act, Script
from tests.chaos.faults import Fault, FaultTiming

ROOMS = ("lobby", "attic", "a:b{c}*", "brief 1", "brief 2", *(f"room {number}" for number in range(7)))
TTL, BRIEF, GRACE, LEASE, SWEEP = 8.0, 3.0, 1.5, 1.2, 2.5
FROM, UNTIL = 1.5, 7.5
"""The period, in seconds, in which faults begin."""

FAULTS: tuple[type[Fault], ...] = (
    faults.Kill, faults.Freeze, faults.KillAll, faults.Deploy, faults.Skew, faults.Drop, faults.HalfOpen,
    faults.CutLink, faults.StallLink, faults.LoseReplies, faults.StallAllLinks,
    faults_redis.KillPubsub, faults_redis.KillNormal, faults_redis.ScriptFlush, faults_redis.Pause,
    faults_redis.PauseAll, faults_redis.Sleep, faults_redis.StopServer, faults_redis.EventsOff,
    faults_redis.ForgedEvents, faults_redis.FlushAll, faults_redis.RestartEmpty, faults_redis.RestartSaved,
    faults_redis.RestartOlder, faults_redis.Failover, faults_redis.KillPrimary, faults_redis.LossyFailover,
    faults_redis.MoveSlot, faults_redis.MoveSlotAtOnce,
)  # fmt: skip

_ACTS = {
    "join": 16, "leave": 14, "update": 14, "away": 4, "back": 4, "members": 6, "count": 4,
    "drop": 7, "close": 3, "silence": 3, "half-open": 2,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Schedule:
    """Everything that a seed determines."""

    seed: int
    shape: str
    kind: str
    nodes: int
    diff_window: float
    skews: tuple[float, ...]
    scripts: tuple[Script, ...]
    faults: tuple[Fault, ...]

    @property
    def title(self) -> str:
        """The faults in one line."""
        return ", ".join(map(str, self.faults))


def draw(
    seed: int, *, kinds: list[str], shape: str = "", only: tuple[str, ...] = (), clients: int = 0
) -> Schedule:
    """Draw the schedule of a seed. A given shape, faults or number of clients override the drawn ones."""
    chance = random.Random(seed)
    shape_drawn = chance.choices(("single", "sentinel", "cluster"), (5, 3, 3))[0]
    kind = chance.choice(kinds)
    shape = shape or shape_drawn
    nodes = chance.choice((2, 3, 3))
    clients_drawn = chance.randrange(100, 161)
    window = chance.choice((0.0, 0.05))
    skews = tuple(chance.choice((0.0, 0.0, -45.0, 45.0, 7200.0)) for _ in range(nodes))
    return Schedule(
        seed, shape, kind, nodes, window, skews,
        _scripts(random.Random(chance.random()), clients or clients_drawn),
        _faults(random.Random(chance.random()), shape, kind, only),
    )  # fmt: skip


def _faults(chance: random.Random, shape: str, kind: str, only: tuple[str, ...]) -> tuple[Fault, ...]:
    possible = [
        fault
        for fault in FAULTS
        if shape in fault.shapes and not (fault is faults_redis.MoveSlotAtOnce and kind != "valkey")
    ]
    if only:
        chosen = [next(fault for fault in possible if fault.name == name) for name in only]
    else:
        chosen = chance.sample(possible, chance.choice((1, 2, 3, 3, 4)))
    timings = [
        FaultTiming(
            at=round(chance.uniform(FROM, UNTIL), 2),
            node=chance.randrange(12),
            seconds=chance.choice(fault.SECONDS),
            share=chance.choice((0.2, 0.5, 0.9)),
            seed=chance.randrange(1 << 30),
        )
        for fault in chosen
    ]
    injected = [fault(timing) for fault, timing in zip(chosen, timings, strict=True)]
    return tuple(sorted(injected, key=lambda fault: fault.timing.at))


def _scripts(chance: random.Random, number: int) -> tuple[Script, ...]:
    return tuple(_script(random.Random(chance.random()), i, number) for i in range(number))


def _script(chance: random.Random, i: int, number: int) -> Script:
    # A tenth of the clients are a second connection of another client's user.
    user = f"u{i if i < number * 0.9 else chance.randrange(int(number * 0.9))}"
    rooms = tuple(chance.sample(ROOMS, chance.choice((1, 1, 2, 3))))
    acts = []
    at = chance.uniform(0.8, 2.5)
    while at < UNTIL + 1:
        kind = chance.choices(tuple(_ACTS), tuple(_ACTS.values()))[0]
        room = chance.choice(ROOMS if kind == "join" else rooms)
        acts.append(Act(round(at, 2), kind, room, _rest(chance, kind)))
        at += chance.expovariate(1 / 2.0)
    view = chance.choices(("members", "count", "none"), (88, 9, 3))[0]
    return Script(
        user, f"{user}#{i}", round(chance.uniform(0.0, 0.8), 2), rooms, tuple(acts), view,
        gives_up=chance.random() < 0.5, seed=chance.randrange(1 << 30),
    )  # fmt: skip


def _rest(chance: random.Random, kind: str) -> float | None:
    match kind:
        case "silence":
            return chance.choice((BRIEF * 0.4, BRIEF * 1.5, None))
        case "drop" | "close" | "half-open":
            return chance.choice((0.1, GRACE * 0.5, GRACE * 1.7, GRACE * 2.5, None))
        case _:
            return 0.0
