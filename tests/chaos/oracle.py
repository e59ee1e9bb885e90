"""The oracle: decides from the clients' messages and the contents of Redis whether all guarantees held.

While a schedule runs, the messages of each socket must be consistent (`view.py`, `client_socket.py`):

1. view: diffs follow the snapshot and each other without a gap (gap); no member of the room joins it; a list
   of the same position has the same members; no diff arrives for a room that the socket is not in.
2. count: after each diff the view has as many members as the diff says.
3. departure: only a member departs (a diff of several changes may also hold a user who joined and left
   within it), and no member disappears, or gets another `joinedAt`, without a departure with a reason.
   Exception: after a loss of data in Redis, a member that seemed new may get back its earlier `joinedAt`.
4. answer: each request gets one reply; no error but `unavailable` and `not_joined`.
5. force-leave: only a member is removed, and for inactivity only a whole TTL after its last acknowledged
   heartbeat. clock: each timestamp is Redis's. close: only the expected close codes. service:
   `service:restored` follows `service:degraded`.

Within a time after the faults (`not_converged`):

6. ghost, lost: the presence keys and the index have exactly the members with a live socket in the room.
7. view: the view of each socket equals Redis: position, name, data, away and number of connections, which is
   the number of live sockets. A socket with the view `count` has the correct count.
8. answer: no request is without a reply. service: no socket is left in `service:degraded`.

Of the whole record (`past`):

9. once: a join has one departure on record, and each socket receives it once. Exceptions: the node of the
   member was frozen, or cut off from Redis alone; then it was declared lost and registered its live sockets
   again. It is the same where the machine was too busy to run the clients. Or Redis lost the departure, and
   the user returned to the same join.
10. record: each join that its own socket received still exists, or its departure is on record with the reason
   that other sockets received. Exceptions: the join had ended before Redis lost data, or turned out to be the
   continuation of an earlier one (see 3). A node that was frozen during the loss, or that missed the messages
   just before it, may record the departure again as `disconnected`, because the reason is lost. A member that
   was reported as `disconnected` just after a loss may depart for another reason later, if a further loss
   removed that guess and restored the join. What only nodes knew that died with the data cannot be known. Nor
   can Redis know of a departure that it lost before a node has repeated it: until then a ban ends the
   membership that is there again, and, once expiry was suspended for a lease, the end of its TTL.
11. reason: `left` was requested, and a user who left over its only socket has no other reason, unless a
   killed node had taken an earlier join of it without an answer, and was not declared lost yet;
   `inactivity_timeout` comes a whole TTL after the last stored heartbeat, and not for a member that sent
   later ones which Redis was not there to store; `disconnected` comes a whole grace after the last socket was
   gone (or at the end of the TTL if that is earlier; or after an earlier grace if Redis lost the return in
   between), and never for a member whose socket was connected throughout, unless its node was frozen or cut
   off from Redis alone. No other reason occurs but `banned`, see bans.py. What observers must see is in
   observers.py.

After all clients have left and the nodes have stopped (`after`):

12. leftover: no key of a member, room or node remains; the other keys have a TTL, or are the record.
13. leak: before it stopped, each node had only the files, sockets and tasks that it started with, and a
   bounded number of idle connections to Redis; it exited in time with code 0 and logged no error.
"""

from collections import defaultdict
from collections.abc import Mapping, Set
from itertools import pairwise

from tests.chaos.history import (
    Finding,
    History,
    Membership,
    ReportedDeparture,
    RoomUser,
    last_refresh,
    now_ms,
)
from tests.chaos.state import Departure, State

ROUNDING = 2
"""Milliseconds by which two readings of one clock, both rounded down, may differ."""
IN_FLIGHT = 1000
"""Milliseconds that a heartbeat may take to Redis without a fault, or a reply from there."""
IDLE_LINKS = 6
"""Idle connections to a server that a node may keep: as many as it uses at once, which are four for
departures, one for the run id of the server and one for its events."""


def past(history: History, state: State) -> list[Finding]:
    """Rules 9 to 11."""
    return [
        *history.violations,
        *_reported_once(history),
        *_recorded_once(history, state),
        *_on_record(history, state),
        *_correct_reasons(history, state),
    ]


def _reported_once(history: History) -> list[Finding]:
    by_socket: dict[tuple[str, str, str, int], list[ReportedDeparture]] = defaultdict(list)
    for reported in history.reported:
        by_socket[reported.socket, reported.room, reported.user, reported.joined_at].append(reported)
    return [
        Finding(
            "once",
            f"{key[0]} received the departure of {key[2]} twice",
            (*map(str, reports), *history.messages_of(*key[:2], after.at)),
        )
        for key, reports in by_socket.items()
        for before, after in pairwise(reports)
        if not _was_impaired(history, key[1:3], before.at)
        and not _rejoined_after_a_loss(history, key[1:3], before.at, after.at)
    ]


def _rejoined_after_a_loss(history: History, room_user: RoomUser, after: int, before: int) -> bool:
    """Whether Redis lost data in this period and the user joined again, without a record of the departure."""
    returned = any(after <= at <= before for at in history.joins.get(room_user, ()))
    return returned and history.lost(after, before)


def _recorded_once(history: History, state: State) -> list[Finding]:
    entries: dict[tuple[str, str, int], list[Departure]] = defaultdict(list)
    for entry in state.departures:
        entries[entry.room, entry.user, entry.joined_at].append(entry)
    return [
        Finding("once", f"{len(found)} departures on record of one join", tuple(map(str, found)))
        for (room, user, _), found in entries.items()
        if len(found) > 1 and not all(_was_impaired(history, (room, user), one.at) for one in found[:-1])
    ]


def _was_impaired(history: History, room_user: RoomUser, at: int) -> bool:
    """Whether the clients, or a node with a socket of this member, were frozen or cut off shortly before."""
    since = at - history.grace - 3 * history.lease
    impaired = [
        period
        for membership in history.memberships
        if (membership.room, membership.user) == room_user
        for period in membership.node.impaired
    ]
    return any(begun < at and ended > since for begun, ended in (*impaired, *history.stalls))


def _continued_an_earlier_join(
    history: History, membership: Membership, known: Set[tuple[str, str, int]]
) -> bool:
    """Whether it turned out to be the continuation of an earlier join that Redis had just lost."""
    assert membership.joined_at is not None
    return history.just_lost(membership.since) and any(
        (room, user) == (membership.room, membership.user) and joined_at < membership.joined_at
        for room, user, joined_at in known
    )


def _on_record(history: History, state: State) -> list[Finding]:
    record: dict[tuple[str, str, int], list[Departure]] = defaultdict(list)
    for entry in state.departures:
        record[entry.room, entry.user, entry.joined_at].append(entry)
    present = {
        (room, user, int(fields.get("joinedAt", 0)))
        for room, members in state.members.items()
        for user, fields in members.items()
    }
    found = []
    for membership in history.memberships:
        if membership.joined_at is None:
            continue
        join = (membership.room, membership.user, membership.joined_at)
        ended = membership.ended()
        messages = (str(membership), *history.messages_of(membership.socket, membership.room))
        if join in present or join in record or history.lost((ended or membership.since) - IN_FLIGHT):
            continue
        if not _continued_an_earlier_join(history, membership, present | record.keys()):
            found.append(
                Finding(
                    "record", f"{_named(*join)} exists no longer, and has no departure on record", messages
                )
            )
    return found + _reported_as_recorded(history, record)


def _named(room: str, user: str, joined_at: int) -> str:
    return f"the join of {user} in {room} at {joined_at}"


def _reported_as_recorded(
    history: History, record: Mapping[tuple[str, str, int], list[Departure]]
) -> list[Finding]:
    found = []
    for reported in history.reported:
        room_user = (reported.room, reported.user)
        entries = record.get((*room_user, reported.joined_at), [])
        reasons = {entry.reason for entry in entries}
        lost = history.lost(_known_since(history, reported) - IN_FLIGHT)
        # The text says which, since at each check another member may depart after Redis was read.
        join, text = _named(*room_user, reported.joined_at), ""
        if not entries:
            text = "" if lost else f"the departure of {join} was sent, and is not on record"
        elif reported.reason not in reasons and not _rejoined_after_a_loss(
            history, room_user, reported.at, now_ms()
        ):
            known = _known_since(history, reported)
            missed = history.lost(known - IN_FLIGHT, known + 3 * history.lease) or _frozen_during_a_loss(
                history
            )
            guessed = lost and missed and reasons == {"disconnected"}
            guess_lost = (
                reported.reason == "disconnected" and history.just_lost(known) and history.lost(reported.at)
            )
            excused = (
                guessed
                or guess_lost
                or _known_to_dead_nodes_alone(history, reported)
                or any(_ended_before_it_was_repeated(history, reported, entry) for entry in entries)
            )
            text = "" if excused else f"{reported.reason} was sent for {join}, and {reasons} is on record"
        if text:
            messages = history.messages_of(reported.socket, reported.room, reported.at)
            evidence = (str(reported), *messages, *map(str, entries), f"Redis lost data in {history.losses}")
            evidence += tuple(f"{life.name} ended at {life.ended_at}" for life in history.nodes)
            found.append(Finding("reason" if entries else "record", text, evidence))
    return found


def _known_to_dead_nodes_alone(history: History, reported: ReportedDeparture) -> bool:
    """Whether Redis lost the departure, and every node that sent it died before it could record it again.

    Later nodes may have sent the end that the member came to when Redis held it again.
    """
    departure = (reported.room, reported.user, reported.joined_at, reported.reason)
    sockets = {
        one.socket for one in history.reported if (one.room, one.user, one.joined_at, one.reason) == departure
    }
    ends = [membership.node.ended_at for membership in history.memberships if membership.socket in sockets]
    return bool(ends) and any(
        all(end is not None and reported.at <= end <= loss[1] + 3 * history.lease for end in ends)
        for loss in history.losses
        if loss[1] >= reported.at - IN_FLIGHT
    )


def _ended_before_it_was_repeated(history: History, reported: ReportedDeparture, entry: Departure) -> bool:
    """Whether Redis lost the departure, and ended the member that it held again before a node repeated it.

    What Redis has forgotten only nodes know, and until they have repeated it Redis cannot know that the
    member is not there: a ban that is made in this moment ends the membership. So does the end of its TTL,
    if the nodes needed longer than the lease for which expiry is suspended, as on a busy machine; before, it
    must not.
    """
    known = _known_since(history, reported) - IN_FLIGHT
    for begun, ended in history.losses:
        if not (ended >= known and begun <= entry.at <= ended + 3 * history.lease and entry.at > reported.at):
            continue
        if entry.reason == "banned":
            return True
        suspended = [at for node in history.nodes for at in node.suspensions if begun <= at]
        late = bool(suspended) and entry.at >= min(suspended) + history.lease - IN_FLIGHT // 2
        if entry.reason == "inactivity_timeout" and late:
            return True
    return False


def _known_since(history: History, reported: ReportedDeparture) -> int:
    """Since when the node knew of it at the latest: a frozen node sends it only after it resumes."""
    return min(
        (
            begun
            for membership in history.memberships
            if membership.socket == reported.socket
            for begun, ended in membership.node.impaired
            if begun < reported.at < ended + IN_FLIGHT
        ),
        default=reported.at,
    )


def _frozen_during_a_loss(history: History) -> bool:
    """Whether a node was frozen while Redis lost data, so that it may have missed messages before that."""
    return any(
        begun < loss[1] and ended > loss[0]
        for membership in history.memberships
        for begun, ended in membership.node.impaired
        for loss in history.losses
    )


def _correct_reasons(history: History, state: State) -> list[Finding]:
    memberships: dict[RoomUser, list[Membership]] = defaultdict(list)
    for membership in history.memberships:
        memberships[membership.room, membership.user].append(membership)
    joins_of: dict[RoomUser, set[int]] = defaultdict(set)
    for entry in state.departures:
        joins_of[entry.room, entry.user].add(entry.joined_at)
    for room, members in state.members.items():
        for user, fields in members.items():
            joins_of[room, user].add(int(fields.get("joinedAt", 0)))
    found = []
    for entry in state.departures:
        room_user = (entry.room, entry.user)
        own = [
            membership
            for membership in memberships[room_user]
            if _join_of(membership, joins_of[room_user]) in {entry.joined_at, 0}
        ]
        why = _why_wrong(history, entry, own)
        if why:
            connected = [one for one in own if one.since <= entry.at]
            messages = [
                line
                for one in connected
                for line in history.messages_of(one.socket, entry.room, entry.at + 5000)
            ]
            evidence = (str(entry), *map(str, connected), *messages)
            found.append(Finding("reason", f"{entry.user} in {entry.room}: {why}", evidence))
    return found


def _join_of(membership: Membership, known: set[int]) -> int:
    """The `joinedAt` of a membership; the latest known one before it if the socket has the view `count`."""
    if membership.joined_at is not None:
        return membership.joined_at
    return max((at for at in known if at <= membership.since), default=0)


def _sent_heartbeats(history: History, entry: Departure, memberships: list[Membership]) -> bool:
    """Whether a socket that was connected to the end had sent a heartbeat that its node could store."""
    if _was_impaired(history, (entry.room, entry.user), entry.at) or history.lost(entry.joined_at, entry.at):
        return False
    since, until = entry.at - history.ttl_of[entry.room] + IN_FLIGHT, entry.at - IN_FLIGHT
    return any(
        since < beat < until
        for membership in memberships
        if membership.until is None or membership.until >= entry.at - ROUNDING
        for beat in membership.heartbeats
    )


def _why_wrong(history: History, entry: Departure, memberships: list[Membership]) -> str:
    stored_at = [
        at
        for membership in memberships
        for at in (history.join_requested_at(membership), *membership.acked)
        if at <= entry.at
    ]
    last_stored = last_refresh(entry.joined_at, stored_at, history.ttl_of[entry.room])
    match entry.reason:
        case "left":
            requested = history.leaves.get((entry.room, entry.user), [])
            return "" if any(at <= entry.at + ROUNDING for at in requested) else "left, without a request"
        case "inactivity_timeout":
            left = last_stored + history.ttl_of[entry.room] - entry.at
            early = left > ROUNDING and not history.lost(last_stored, entry.at)
            left_once = len(memberships) == 1 and memberships[0].how == "left"
            in_time = left_once and history.connected_until(memberships[0]) < entry.at - IN_FLIGHT
            alone = not _may_be_in_by_a_dead_node(history, entry)
            if in_time and alone and not history.lost(memberships[0].since, entry.at):
                return "removed for inactivity after it had left"
            if early:
                return f"removed for inactivity {left} ms before the expiry"
            was_active = _sent_heartbeats(history, entry, memberships)
            return "removed for inactivity in spite of heartbeats" if was_active else ""
        case "disconnected":
            since = entry.at - history.grace + ROUNDING
            connected = [
                membership
                for membership in memberships
                if membership.since < entry.at and history.connected_until(membership) > since
            ]
            still_connected = [
                membership
                for membership in memberships
                if membership.since < entry.at and history.connected_until(membership) > entry.at
            ]
            expired = not still_connected and last_stored + history.ttl_of[entry.room] - entry.at <= ROUNDING
            cut_short = (
                not still_connected
                and bool(connected)
                and history.lost(min(membership.since for membership in connected), entry.at)
            )
            if (
                not connected
                or expired
                or cut_short
                or _was_impaired(history, (entry.room, entry.user), entry.at)
            ):
                return ""
            return f"disconnected while {connected[0].socket} was connected, or too early"
        case "banned":
            return ""  # judged by bans.py
        case _:
            return f"{entry.reason} is not a possible reason"


def _may_be_in_by_a_dead_node(history: History, entry: Departure) -> bool:
    """Whether a connection of a killed node, which took its join without an answer, may have been counted."""
    return any(
        node.ended_at is not None and node.ended_at <= entry.at
        for node in history.unanswered.get((entry.room, entry.user), ())
    )


def after(state: State) -> list[Finding]:
    """Rule 12."""
    return [Finding("leftover", key) for key in state.leftovers()]


def leaks(name: str, base: dict[str, int], now: dict[str, int], servers: int) -> list[Finding]:
    """Rule 13: the resources of a node beyond those that it started with."""
    spare = {"other sockets": IDLE_LINKS * servers}
    return [
        Finding("leak", f"{name} has {number} {what}, and started with {base.get(what, 0)}")
        for what, number in sorted(now.items())
        if number > base.get(what, 0) + spare.get(what, 0)
    ]
