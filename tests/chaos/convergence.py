"""Rules 6 to 8 of the oracle: whether the views of all clients equal what Redis holds."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping

from tests.chaos.client_socket import ClientSocket
from tests.chaos.history import Finding, now_ms
from tests.chaos.state import State
from tests.chaos.view import View

SLOW = 1500
"""Milliseconds after which a request counts as unanswered once the faults are over."""


def not_converged(sockets: Iterable[ClientSocket], state: State) -> list[Finding]:
    """The differences that remain."""
    sockets = list(sockets)
    inside = sockets_by_room(sockets)
    found: list[Finding] = []
    for room in sorted(inside.keys() | state.members.keys() | state.rows.keys()):
        found += _presence_matches_sockets(room, inside[room], state)
    for socket in sockets:
        if socket.alive:
            found += _view_matches(socket, inside, state)
    return found


def _presence_matches_sockets(room: str, inside: Counter[str], state: State) -> list[Finding]:
    present = state.members.get(room, {}).keys()
    found = [Finding("ghost", f"{user} is in {room}, and has no socket") for user in present - inside.keys()]
    found += [
        Finding("lost", f"{user} is not in {room}, and has a socket") for user in inside.keys() - present
    ]
    rows = state.rows.get(room, set())
    found += [Finding("ghost", f"a row of {user} in {room}, without a key") for user in rows - present]
    found += [Finding("lost", f"a key of {user} in {room}, without a row") for user in present - rows]
    return found


def _view_matches(socket: ClientSocket, inside: dict[str, Counter[str]], state: State) -> list[Finding]:
    found = []
    requested = sorted(
        f"{kind} {room}" for kind, room, _, at in socket.pending.values() if now_ms() - at > SLOW
    )
    if requested:
        found.append(
            Finding("answer", f"{socket.name} has no answer to {requested}", tuple(socket.recent[-12:]))
        )
    if socket.degraded:
        found.append(
            Finding("service", f"{socket.name} did not receive service:restored", tuple(socket.recent[-8:]))
        )
    for room in socket.inside:
        view, members = socket.views[room], state.members.get(room, {})
        position = state.positions.get(room)
        what = ""
        if view.shown == "none":
            continue
        if view.shown == "count":
            if view.count != len(members):
                what = f"has a count of {view.count}, and Redis of {len(members)}"
        elif (view.epoch, view.version) != position:
            what = f"is at {view.epoch} {view.version}, and Redis at {position}"
        else:
            listed, stored = listed_fields(view), stored_members(members, inside[room])
            if listed != stored:
                what = f"differs: received {_only(listed, stored)}, in Redis {_only(stored, listed)}"
        if what:
            evidence = [text for text in socket.recent if f'"{room}"' in text]
            found.append(Finding("view", f"{socket.name} in {room} {what}", tuple(evidence[-8:])))
    return found


def listed_fields(view: View) -> dict[str, tuple[object, ...]]:
    """What a view shows of each member."""
    return {user: _fields(member) for user, member in view.members.items()}


def stored_members(
    members: Mapping[str, dict[str, str]], sockets: Mapping[str, int]
) -> dict[str, tuple[object, ...]]:
    """What views must show of each member that Redis holds. sockets: of each user in the room."""
    return {user: _stored_fields(fields, sockets.get(user, 0)) for user, fields in members.items()}


def sockets_by_room(sockets: Iterable[ClientSocket]) -> dict[str, Counter[str]]:
    """The number of live sockets in each room, by user."""
    inside: dict[str, Counter[str]] = defaultdict(Counter)
    for socket in sockets:
        for room in socket.inside:
            inside[room][socket.user] += 1
    return inside


def _fields(member: dict[str, object]) -> tuple[object, ...]:
    data = member.get("data")
    number = data["n"] if isinstance(data, dict) else None
    return (member["username"], member["joinedAt"], member["away"], member["connections"], number)


def _stored_fields(fields: dict[str, str], sockets: int) -> tuple[object, ...]:
    data = fields.get("data")
    number = int(data.removeprefix('{"n":').removesuffix("}")) if data else None
    connections = int(fields.get("connections", 1))
    seen = connections if connections == sockets else f"{connections} for {sockets} sockets"
    return (fields.get("username"), int(fields.get("joinedAt", 0)), fields.get("away") == "1", seen, number)


def _only(one: dict[str, tuple[object, ...]], other: dict[str, tuple[object, ...]]) -> list[object]:
    return sorted(one.items() - other.items(), key=str)
