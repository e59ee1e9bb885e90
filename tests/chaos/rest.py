"""Rules 6 to 8 of the oracle: whether all are of one mind."""

from collections import Counter, defaultdict
from collections.abc import Iterable

from tests.chaos.history import Finding, now_ms
from tests.chaos.line import Line
from tests.chaos.state import State

SLOW = 1500
"""Milliseconds after which a request of a healed system is without an answer."""


def at_rest(lines: Iterable[Line], state: State) -> list[Finding]:
    """What is not so yet."""
    lines = list(lines)
    inside: dict[str, Counter[str]] = defaultdict(Counter)
    for line in lines:
        for room in line.inside:
            inside[room][line.user] += 1
    found: list[Finding] = []
    for room in sorted(inside.keys() | state.members.keys() | state.rows.keys()):
        found += _who_is_there(room, inside[room], state)
    for line in lines:
        if line.alive:
            found += _agrees(line, inside, state)
    return found


def _who_is_there(room: str, inside: Counter[str], state: State) -> list[Finding]:
    present = state.members.get(room, {}).keys()
    found = [Finding("ghost", f"{user} is in {room}, and has no socket") for user in present - inside.keys()]
    found += [
        Finding("lost", f"{user} is not in {room}, and has a socket") for user in inside.keys() - present
    ]
    rows = state.rows.get(room, set())
    found += [Finding("ghost", f"a row of {user} in {room}, without a key") for user in rows - present]
    found += [Finding("lost", f"a key of {user} in {room}, without a row") for user in present - rows]
    return found


def _agrees(line: Line, inside: dict[str, Counter[str]], state: State) -> list[Finding]:
    found = []
    asked = sorted(f"{kind} {room}" for kind, room, _, at in line.asked.values() if now_ms() - at > SLOW)
    if asked:
        found.append(Finding("answer", f"{line.name} has no answer to {asked}", tuple(line.tail[-12:])))
    if line.degraded:
        found.append(
            Finding("service", f"{line.name} was not told that Redis is back", tuple(line.tail[-8:]))
        )
    for room in line.inside:
        view, members = line.views[room], state.members.get(room, {})
        place = state.positions.get(room)
        what = ""
        if view.shown == "none":
            continue
        if view.shown == "count":
            if view.count != len(members):
                what = f"was told a count of {view.count}, and it is {len(members)}"
        elif (view.epoch, view.version) != place:
            what = f"is at {view.epoch} {view.version}, and Redis at {place}"
        else:
            listed = {user: _face(member) for user, member in view.members.items()}
            held = {user: _face_in_redis(fields, inside[room][user]) for user, fields in members.items()}
            if listed != held:
                what = f"differs: told {_only(listed, held)}, in Redis {_only(held, listed)}"
        if what:
            evidence = [text for text in line.tail if f'"{room}"' in text]
            found.append(Finding("view", f"{line.name} in {room} {what}", tuple(evidence[-8:])))
    return found


def _face(member: dict[str, object]) -> tuple[object, ...]:
    data = member.get("data")
    number = data["n"] if isinstance(data, dict) else None
    return (member["username"], member["joinedAt"], member["away"], member["connections"], number)


def _face_in_redis(fields: dict[str, str], sockets: int) -> tuple[object, ...]:
    data = fields.get("data")
    number = int(data.removeprefix('{"n":').removesuffix("}")) if data else None
    connections = int(fields.get("connections", 1))
    seen = connections if connections == sockets else f"{connections} for {sockets} sockets"
    return (fields.get("username"), int(fields.get("joinedAt", 0)), fields.get("away") == "1", seen, number)


def _only(one: dict[str, tuple[object, ...]], other: dict[str, tuple[object, ...]]) -> list[object]:
    return sorted(one.items() - other.items(), key=str)
