"""The judge. It knows what each client was told and what Redis holds, and nothing else.

While a schedule runs, each socket's own story has to hold (`view.py`, `line.py`):

1. view: diffs join on to the snapshot and to each other (gap), nobody joins who is there, a list of the same
   position says the same, and nothing is heard of a room that one is not in.
2. count: after each diff there are as many members as it says.
3. departure: nobody leaves who was not there (but in a diff of several changes: one who came and went within
   it), and nobody goes, or becomes another joining of the same user, without a told reason; but where Redis
   has just lost data, one who seemed to be new may turn out to have been there all the while.
4. answer: each request is answered once; nothing but `unavailable` and `not_joined` is refused.
5. force-leave: only one who is in a room is put out of it, and for inactivity only a whole TTL after the last
   acknowledged heartbeat. clock: each time that is told is Redis's. close: only the known codes.
   service: restored follows degraded.

When faults are over, within a time (`at_rest`):

6. ghost, lost: the presence keys and the rows of the index are the living sockets that were told to be in.
7. view: each socket's list is Redis's, at its very position, with name, data, away and number of connections;
   that number is the living sockets'. A socket that chose to hear the count has the right one.
8. answer: no request is without an answer. service: nobody is left degraded.

Of all that happened (`past`):

9. once: a joining departs once on record, and once for each socket that was told. It may do so again only
   where its node was frozen, or alone cut off from Redis: judged lost for good reason, it enters its living
   sockets again; and be told again where Redis lost the departure, and the user came back: into that joining.
10. record: each joining that was told to its own socket is there, or its departure is on record; the reason
    that others were told is the one on record. Only what was over before Redis lost data may be missing, and
    what turned out (see 3) to be the going on of an earlier joining. A node that was frozen then, or that
    missed what was told just before, may put somebody on record anew, as `disconnected`: Redis has lost why.
    And who was told as `disconnected` where Redis had just lost data may leave in truth, where a later loss
    took that guess and gave the joining back. What only nodes knew that died with it, nobody can say.
11. reason: `left` was asked for, and nothing else is told of one who left over its only socket;
    `inactivity_timeout` comes a whole TTL after the last taken heartbeat, and not to one who sent others that
    Redis was not there to take;
    `disconnected` comes a whole grace after the last socket was gone (or at the end of its TTL, where that
    is sooner; or of the grace before, where Redis lost that the user had been back since), and never to one
    whose socket was there all the while, but where its node was frozen or alone cut off from Redis. Nothing
    else is a reason.

When everybody has gone and the nodes were stopped (`after`):

12. leftover: no key of a member, room or node is left; what is left has an end, or is the record.
13. leak: before it stopped, each node had the files, sockets and tasks that one begins with, and at most some
    more idle connections to Redis; it stopped in time, with exit code 0, and its log tells of no mistake.
"""

from collections import defaultdict
from collections.abc import Mapping, Set
from itertools import pairwise

from tests.chaos.history import Finding, ForWhom, History, Stay, Told, last_refresh, now_ms
from tests.chaos.state import Departure, State

ROUNDING = 2
"""Milliseconds between two readings of one clock that are rounded down."""
ON_ITS_WAY = 1000
"""Milliseconds that a heartbeat may take to Redis when nothing is wrong, or an answer from there."""
IDLE_LINKS = 6
"""Connections to a server that a node may keep for its next question: as many as it asks at once, which are
four about departures, one about the server's life and one about its events."""


def past(history: History, state: State) -> list[Finding]:
    """Rules 9 to 11."""
    return [
        *history.troubles,
        *_told_once(history),
        *_recorded_once(history, state),
        *_on_record(history, state),
        *_true_reasons(history, state),
    ]


def _told_once(history: History) -> list[Finding]:
    by_socket: dict[tuple[str, str, str, int], list[Told]] = defaultdict(list)
    for told in history.told:
        by_socket[told.socket, told.room, told.user, told.joined_at].append(told)
    return [
        Finding(
            "once",
            f"{key[0]} was told again that {key[2]} left",
            (*map(str, tellings), *history.heard(*key[:2], after.at)),
        )
        for key, tellings in by_socket.items()
        for before, after in pairwise(tellings)
        if not _was_impaired(history, key[1:3], before.at)
        and not _came_back(history, key[1:3], before.at, after.at)
    ]


def _came_back(history: History, who: ForWhom, after: int, before: int) -> bool:
    """Whether Redis lost data then, and the user asked to be in again: it knew nothing of the departure."""
    returned = any(after <= at <= before for at in history.joins.get(who, ()))
    return returned and history.lost(after, before)


def _recorded_once(history: History, state: State) -> list[Finding]:
    entries: dict[tuple[str, str, int], list[Departure]] = defaultdict(list)
    for entry in state.departures:
        entries[entry.room, entry.user, entry.joined_at].append(entry)
    return [
        Finding("once", f"{len(found)} departures on record of one joining", tuple(map(str, found)))
        for (room, user, _), found in entries.items()
        if len(found) > 1 and not all(_was_impaired(history, (room, user), one.at) for one in found[:-1])
    ]


def _was_impaired(history: History, who: ForWhom, at: int) -> bool:
    """Whether a node with a socket of this member was frozen, or alone without Redis, shortly before."""
    since = at - history.grace - 3 * history.lease
    return any(
        begun < at and ended > since
        for stay in history.stays
        if (stay.room, stay.user) == who
        for begun, ended in stay.node.impaired
    )


def _was_another(history: History, stay: Stay, known: Set[tuple[str, str, int]]) -> bool:
    """Whether it turned out to be the going on of an earlier joining that Redis had just lost."""
    assert stay.joined_at is not None
    return history.just_lost(stay.since) and any(
        (room, user) == (stay.room, stay.user) and joined_at < stay.joined_at
        for room, user, joined_at in known
    )


def _on_record(history: History, state: State) -> list[Finding]:
    record: dict[tuple[str, str, int], set[str]] = defaultdict(set)
    for entry in state.departures:
        record[entry.room, entry.user, entry.joined_at].add(entry.reason)
    present = {
        (room, user, int(fields.get("joinedAt", 0)))
        for room, members in state.members.items()
        for user, fields in members.items()
    }
    found = []
    for stay in history.stays:
        if stay.joined_at is None:
            continue
        joining = (stay.room, stay.user, stay.joined_at)
        ended = stay.ended()
        heard = (str(stay), *history.heard(stay.socket, stay.room))
        if joining in present or joining in record or history.lost((ended or stay.since) - ON_ITS_WAY):
            continue
        if not _was_another(history, stay, present | record.keys()):
            found.append(Finding("record", "a joining is not there, and its departure not on record", heard))
    return found + _told_as_recorded(history, record)


def _told_as_recorded(history: History, record: Mapping[tuple[str, str, int], Set[str]]) -> list[Finding]:
    found = []
    for told in history.told:
        who = (told.room, told.user)
        reasons = record.get((*who, told.joined_at))
        lost = history.lost(_known_at(history, told) - ON_ITS_WAY)
        text = ""
        if reasons is None:
            text = "" if lost else "a departure was told that is not on record"
        elif told.reason not in reasons and not _came_back(history, who, told.at, now_ms()):
            known = _known_at(history, told)
            missed = history.lost(known - ON_ITS_WAY, known + 3 * history.lease) or _frozen_in_a_loss(history)
            guessed = lost and missed and reasons == {"disconnected"}
            guess_lost = told.reason == "disconnected" and history.just_lost(known) and history.lost(told.at)
            excused = guessed or guess_lost or _died_with_it(history, told)
            text = "" if excused else f"told another reason than is on record, {reasons}"
        if text:
            heard = history.heard(told.socket, told.room, told.at)
            found.append(Finding("record" if reasons is None else "reason", text, (str(told), *heard)))
    return found


def _died_with_it(history: History, told: Told) -> bool:
    """Whether Redis lost the departure, and every node that told of it died before it could say so again."""
    departure = (told.room, told.user, told.joined_at)
    sockets = {one.socket for one in history.told if (one.room, one.user, one.joined_at) == departure}
    ends = [stay.node.ended_at for stay in history.stays if stay.socket in sockets]
    return bool(ends) and any(
        all(end is not None and told.at <= end <= loss[1] + 3 * history.lease for end in ends)
        for loss in history.losses
        if loss[1] >= told.at - ON_ITS_WAY
    )


def _known_at(history: History, told: Told) -> int:
    """Since when the node knew at the latest: one that was frozen tells late what it had heard before."""
    return min(
        (
            begun
            for stay in history.stays
            if stay.socket == told.socket
            for begun, ended in stay.node.impaired
            if begun < told.at < ended + ON_ITS_WAY
        ),
        default=told.at,
    )


def _frozen_in_a_loss(history: History) -> bool:
    """Whether Redis lost data that a node had not told of yet, and cannot know the whole of when it wakes."""
    return any(
        begun < loss[1] and ended > loss[0]
        for stay in history.stays
        for begun, ended in stay.node.impaired
        for loss in history.losses
    )


def _true_reasons(history: History, state: State) -> list[Finding]:
    stays: dict[ForWhom, list[Stay]] = defaultdict(list)
    for stay in history.stays:
        stays[stay.room, stay.user].append(stay)
    joinings: dict[ForWhom, set[int]] = defaultdict(set)
    for entry in state.departures:
        joinings[entry.room, entry.user].add(entry.joined_at)
    for room, members in state.members.items():
        for user, fields in members.items():
            joinings[room, user].add(int(fields.get("joinedAt", 0)))
    found = []
    for entry in state.departures:
        who = (entry.room, entry.user)
        mine = [stay for stay in stays[who] if _joining(stay, joinings[who]) in {entry.joined_at, 0}]
        why = _why_untrue(history, entry, mine)
        if why:
            here = [one for one in mine if one.since <= entry.at]
            heard = [line for one in here for line in history.heard(one.socket, entry.room, entry.at + 5000)]
            evidence = (str(entry), *map(str, here), *heard)
            found.append(Finding("reason", f"{entry.user} in {entry.room}: {why}", evidence))
    return found


def _joining(stay: Stay, known: set[int]) -> int:
    """The joining that a stay is of. One who chose to hear counts was not told: the latest until then."""
    if stay.joined_at is not None:
        return stay.joined_at
    return max((at for at in known if at <= stay.since), default=0)


def _had_said_so(history: History, entry: Departure, stays: list[Stay]) -> bool:
    """Whether a socket that was there up to the end had sent a heartbeat that its node could pass on."""
    if _was_impaired(history, (entry.room, entry.user), entry.at) or history.lost(entry.joined_at, entry.at):
        return False
    since, until = entry.at - history.ttl_of[entry.room] + ON_ITS_WAY, entry.at - ON_ITS_WAY
    return any(
        since < beat < until
        for stay in stays
        if stay.until is None or stay.until >= entry.at - ROUNDING
        for beat in stay.beats
    )


def _why_untrue(history: History, entry: Departure, stays: list[Stay]) -> str:
    taken = [at for stay in stays for at in (history.asked_to_join(stay), *stay.acked) if at <= entry.at]
    last_taken = last_refresh(entry.joined_at, taken, history.ttl_of[entry.room])
    match entry.reason:
        case "left":
            asked = history.leaves.get((entry.room, entry.user), [])
            return "" if any(at <= entry.at + ROUNDING for at in asked) else "left, and never asked for it"
        case "inactivity_timeout":
            left = last_taken + history.ttl_of[entry.room] - entry.at
            early = left > ROUNDING and not history.lost(last_taken, entry.at)
            left_once = len(stays) == 1 and stays[0].how == "left"
            in_time = left_once and history.here_until(stays[0]) < entry.at - ON_ITS_WAY
            if in_time and not history.lost(stays[0].since, entry.at):
                return "put out for inactivity, and it had left"
            if early:
                return f"put out {left} ms before its time"
            said_so = _had_said_so(history, entry, stays)
            return "put out for inactivity, and it had said that it is there" if said_so else ""
        case "disconnected":
            since = entry.at - history.grace + ROUNDING
            here = [stay for stay in stays if stay.since < entry.at and history.here_until(stay) > since]
            still_here = [
                stay for stay in stays if stay.since < entry.at and history.here_until(stay) > entry.at
            ]
            ran_out = not still_here and last_taken + history.ttl_of[entry.room] - entry.at <= ROUNDING
            cut_short = (
                not still_here and bool(here) and history.lost(min(stay.since for stay in here), entry.at)
            )
            if not here or ran_out or cut_short or _was_impaired(history, (entry.room, entry.user), entry.at):
                return ""
            return f"disconnected while {here[0].socket} was there, or too early"
        case _:
            return f"nobody could be {entry.reason}"


def after(state: State) -> list[Finding]:
    """Rule 12."""
    return [Finding("leftover", key) for key in state.leftovers()]


def leaks(name: str, base: dict[str, int], now: dict[str, int], servers: int) -> list[Finding]:
    """Rule 13: what a node holds beyond what it began with."""
    spare = {"other sockets": IDLE_LINKS * servers}
    return [
        Finding("leak", f"{name} has {number} {what}, and began with {base.get(what, 0)}")
        for what, number in sorted(now.items())
        if number > base.get(what, 0) + spare.get(what, 0)
    ]
