"""Draws a schedule from a seed: the servers, the nodes, the script of each client, and the faults."""

import random
from dataclasses import dataclass

from tests.chaos import faults, faults_data, faults_people, faults_redis
from tests.chaos.bans import BanAct
from tests.chaos.client import Act, Script
from tests.chaos.faults import Fault, FaultTiming
from tests.chaos.moderator import FOREVER
from tests.chaos.observers import Watching
from tests.support import servers

ROOMS = ("lobby", "attic", "a:b{c}*", "brief 1", "brief 2", *(f"room {number}" for number in range(7)))
TTL, BRIEF, GRACE, LEASE, SWEEP = 8.0, 3.0, 1.5, 1.2, 2.5
FROM, UNTIL = 1.5, 7.5
"""The period, in seconds, in which faults begin."""
OBSERVERS, BANNED = 6, 12
"""Observers, and members that are banned."""

FAULTS: tuple[type[Fault], ...] = (
    faults.Kill, faults.Freeze, faults.KillAll, faults.Deploy, faults.Skew, faults.Drop, faults.HalfOpen,
    faults.CutLink, faults.StallLink, faults.LoseReplies, faults.StallAllLinks,
    faults_redis.KillPubsub, faults_redis.KillNormal, faults_redis.ScriptFlush, faults_redis.Pause,
    faults_redis.PauseAll, faults_redis.Sleep, faults_redis.StopServer, faults_redis.EventsOff,
    faults_redis.ForgedEvents, faults_redis.FlushAll, faults_redis.RestartEmpty, faults_redis.RestartSaved,
    faults_redis.RestartOlder, faults_redis.Failover, faults_redis.KillPrimary, faults_redis.LossyFailover,
    faults_redis.MoveSlot, faults_redis.MoveSlotAtOnce, faults.MassDrop,
    faults_people.KillBeforeJoin, faults_people.KillBeforeExit,
    faults_data.Evict, faults_data.ClockStep, faults_data.OtherFormat, faults_data.TwoDatabases,
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
    tokens: bool
    scripts: tuple[Script, ...]
    observers: tuple[Watching, ...]
    bans: tuple[BanAct, ...]
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
    scripts = _scripts(random.Random(chance.random()), clients or clients_drawn)
    injected = _faults(random.Random(chance.random()), shape, kind, only)
    return Schedule(
        seed, shape, kind, nodes, window, skews, chance.random() < 0.5, scripts,
        _observers(random.Random(chance.random())), _bans(random.Random(chance.random()), scripts), injected,
    )  # fmt: skip


def _faults(chance: random.Random, shape: str, kind: str, only: tuple[str, ...]) -> tuple[Fault, ...]:
    possible = [
        fault
        for fault in FAULTS
        if shape in fault.shapes
        and not (fault is faults_redis.MoveSlotAtOnce and not servers.moves_slots_at_once(kind))
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


def _observers(chance: random.Random) -> tuple[Watching, ...]:
    return tuple(
        Watching(
            f"observer{i}",
            tuple(chance.sample(ROOMS, chance.choice((0, 1, 3)))),
            tuple(sorted(round(chance.uniform(1.0, UNTIL + 1), 2) for _ in range(chance.choice((0, 1, 2))))),
            seed=chance.randrange(1 << 30),
        )
        for i in range(OBSERVERS)
    )


def _bans(chance: random.Random, scripts: tuple[Script, ...]) -> tuple[BanAct, ...]:
    """Bans of members and of observers: most for some seconds, some lifted earlier, a few for good."""
    users = sorted({script.user for script in scripts})
    targets = [
        (user, chance.choice((None, *ROOMS[:3])))
        for user in chance.sample(users, min(BANNED, len(users) // 3))
    ]
    targets += [(f"observer{i}", room) for i, room in ((0, None), (1, chance.choice(ROOMS)))]
    acts = []
    for user, room in targets:
        at, seconds = round(chance.uniform(1.2, UNTIL), 2), chance.choice((1.5, 3.0, 5.0, 5.0, FOREVER))
        lifted = chance.random() < 0.5 and seconds == 5.0
        acts.append(
            BanAct(at, user, room, seconds, round(at + chance.uniform(0.5, 4.0), 2) if lifted else None)
        )
    return tuple(acts)


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
