"""The command `reactor size`: how many servers and how large a Redis a load needs."""

import math
from importlib.resources import files
from typing import Annotated, Any

import msgspec
from cyclopts import Parameter

from reactor.cli.sizing import CORE_SHARE, REDIS_CORE_SHARE, REDIS_MEMORY_SHARE, Load, Size, size_of
from reactor.settings import kinds

_STAY = 1800.0
"""Seconds that a user stays in a room on average, where the number of joins is not given."""

_USERS = kinds.whole(1, 1_000_000_000)
_ROOMS_PER_USER = kinds.whole(1, 1000)
_ROOM_SIZE = kinds.whole(1, 1_000_000_000)
_INTERVAL = kinds.duration(1.0)
_TTL = kinds.duration(1.0)
_DATA = kinds.size(0, 1024 * 1024)


def capacity_table() -> dict[str, dict[str, Any]]:
    """Return the measured figures: by name their `value`, `unit`, what they are `of`, and the source."""
    text = files("reactor.cli").joinpath("capacity.json").read_bytes()
    table: dict[str, dict[str, Any]] = msgspec.json.decode(text)["figures"]
    return table


def size(
    *,
    users: Annotated[str, Parameter(metavar="NUMBER")] = "10000",
    rooms_per_user: Annotated[str, Parameter(metavar="NUMBER")] = "1",
    room_size: Annotated[str, Parameter(metavar="NUMBER")] = "50",
    heartbeat_interval: Annotated[str, Parameter(metavar="DURATION")] = "25s",
    joins_per_second: Annotated[
        float | None, Parameter(metavar="NUMBER", show_default="each stays for half an hour")
    ] = None,
    data: Annotated[str, Parameter(metavar="SIZE")] = "60",
    ttl: Annotated[str, Parameter(metavar="DURATION")] = "6h",
    json: Annotated[bool, Parameter(show_default=False, help="Print JSON, as into a pipe.")] = False,
) -> None:
    """Compute how many servers, and how large a Redis, a number of users needs.

    From figures that were measured; nothing is connected to. It plans for half of each core, and for the loss
    of one server process.

    Parameters
    ----------
    users
        Users that are connected at the same time.
    rooms_per_user
        Rooms that each of them is in.
    room_size
        Members of a room.
    heartbeat_interval
        As in the setting of this name.
    joins_per_second
        Joins of all users together; as many leave.
    data
        Bytes of a member's name and data.
    ttl
        As in the setting of this name.
    """
    from reactor.cli import output

    memberships = _USERS.read("--users", users) * _ROOMS_PER_USER.read("--rooms-per-user", rooms_per_user)
    if joins_per_second is None:
        joins_per_second = memberships / _STAY
    load = Load(
        users=_USERS.read("--users", users),
        rooms_per_user=_ROOMS_PER_USER.read("--rooms-per-user", rooms_per_user),
        room_size=_ROOM_SIZE.read("--room-size", room_size),
        heartbeat_interval=_INTERVAL.read("--heartbeat-interval", heartbeat_interval),
        joins_per_second=_positive("--joins-per-second", joins_per_second),
        data=_DATA.read("--data", data),
        ttl=_TTL.read("--ttl", ttl),
    )
    found = size_of(load, {name: row["value"] for name, row in capacity_table().items()})
    if output.use_json(json):
        output.print_json(found.as_dict())
        return
    answer = sections(found)
    width = max(len(name) for _, rows in answer for name, _ in rows)
    for title, rows in answer:
        output.print_line(title)
        for name, text in rows:
            output.print_line(f"  {name:<{width}}  {text}")


def _positive(name: str, value: float) -> float:
    from reactor.errors import SettingError

    if not (math.isfinite(value) and value >= 0):
        raise SettingError(f"{name} takes a number from 0 on.")
    return value


def sections(found: Size) -> list[tuple[str, list[tuple[str, str]]]]:
    """Return the answer as titles with rows of a name and a text."""
    load, nodes, redis = found.load, found.nodes, found.redis
    lost = f"; {CORE_SHARE:.0%} of a core planned, one is a spare"
    total = nodes.total_memory_bytes
    maxmemory = f"maxmemory {_bytes(redis.maxmemory_bytes)} ({REDIS_MEMORY_SHARE:.0%} filled)"
    returned = _rate(found.all_return_seconds)
    single = "a single server or a Sentinel set" if redis.primaries == 1 else "a cluster"
    return [
        (
            "Load",
            [
                ("users", f"{load.users:,} in {found.rooms:,} rooms, {found.memberships:,} members"),
                ("heartbeats", f"{_rate(found.heartbeats_per_second)}/s"),
                ("joins", f"{_rate(load.joins_per_second)}/s, and as many departures"),
            ],
        ),
        (
            "Servers",
            [
                ("processes (--workers)", f"{nodes.workers}, by {nodes.decided_by}{lost}"),
                ("CPU of all", _cores(nodes.cores)),
                (
                    "memory of each",
                    f"{_bytes(nodes.memory_bytes)} ({_bytes(total)} in all)",
                ),
                ("connections of each", f"up to {nodes.connections:,}"),
                ("open files of each", f"LimitNOFILE={nodes.open_files}"),
            ],
        ),
        (
            "Redis",
            [
                ("primaries", f"{redis.primaries}: {single}"),
                ("shards of each", f"{redis.shards_per_primary} of {redis.shards}"),
                ("CPU of all", f"{_cores(redis.cores)}; {REDIS_CORE_SHARE:.0%} of a core planned for each"),
                (
                    "memory of all",
                    f"{_bytes(redis.memory_bytes)}; {maxmemory}",
                ),
                ("connections", f"{redis.connections} to each primary"),
            ],
        ),
        (
            "In all",
            [
                ("users for each core", f"{found.users_per_core:,}, of which they use {CORE_SHARE:.0%}"),
                ("users for each GiB", f"{found.users_per_gib:,} in the servers"),
                (
                    "all of them return within",
                    f"{returned} s, if no core does other work",
                ),
            ],
        ),
    ]


def _cores(cores: float) -> str:
    return f"{cores:.2f} cores"


def _rate(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 else f"{value:.1f}"


def _bytes(count: float) -> str:
    for unit, of in (("GiB", 2**30), ("MiB", 2**20)):
        if count >= of:
            value = count / of
            return f"{value:,.0f} {unit}" if value >= 10 else f"{value:.1f} {unit}"
    return f"{math.ceil(count / 1024)} KiB"
