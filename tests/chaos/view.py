"""A room as one socket sees it: the snapshot, then every diff, applied strictly.

A diff that does not fit is recorded as a violation, with the messages before it.
"""

from typing import Any

from tests.chaos.history import History, ReportedDeparture, now_ms

Message = dict[str, Any]


class View:
    """The state of the room. `members` is by user id; with the view `count`, only `count` is kept."""

    def __init__(self, history: History, room: str, socket: str) -> None:
        self._history, self.room, self.socket = history, room, socket
        self.epoch, self.version, self.count = "", 0, 0
        self.members: dict[str, Message] = {}
        self.shown = "members"

    def begin(self, joined: Message, former: "View | None" = None) -> None:
        """Take the answer to a join: a list, or what has changed since the list of the former socket."""
        self.shown = joined["view"]
        if "diffs" not in joined:
            self._reset(joined)
            return
        if former is None:
            self._violation("view", "received diffs in place of a list, and had asked for a list")
            return
        self.epoch, self.version, self.count = former.epoch, former.version, former.count
        self.members = dict(former.members)
        for diff in joined["diffs"]:
            self.apply({"roomId": self.room, "epoch": joined["epoch"], **diff})
        if (self.epoch, self.version) != (joined["epoch"], joined["version"]):
            self._violation("gap", f"the diffs of the answer lead to {self.epoch} {self.version}")
        if len(self.members) != joined["count"]:
            self._violation("count", f"{len(self.members)} members by the diffs of {joined['count']}")

    def listing(self, reply: Message) -> None:
        """Take a requested list. If it has the position of the view, it must have the same members."""
        if self.shown != "members" or "members" not in reply:
            return
        if (reply["epoch"], reply["version"]) == (self.epoch, self.version):
            listed = {member["userId"]: member["joinedAt"] for member in reply["members"]}
            known = {user: member["joinedAt"] for user, member in self.members.items()}
            if listed != known:
                self._violation("view", f"the list differs from the diffs: {_differ(known, listed)}")
        elif reply["epoch"] == self.epoch and reply["version"] < self.version:
            return  # older than the diffs received since
        self._reset(reply)

    def counted(self, reported: Message) -> None:
        """Take a count that the server sent by itself, to a client with the view `count`."""
        if self.shown == "count":
            if reported["epoch"] == self.epoch and reported["version"] < self.version:
                self._violation("view", f"a count of {reported['version']} after one of {self.version}")
            self.epoch, self.version, self.count = reported["epoch"], reported["version"], reported["count"]

    def apply(self, diff: Message) -> None:
        """Apply a diff."""
        if diff["epoch"] != self.epoch:
            if diff["from"] != 0:
                self._violation("gap", f"{_position(diff)} does not follow {self.epoch} {self.version}")
            self._replace_all(diff)
        elif diff["version"] <= self.version:
            return
        else:
            if diff["from"] > self.version:
                self._violation("gap", f"{_position(diff)} does not follow {self.epoch} {self.version}")
            self._apply_changes(diff, overlaps=diff["from"] < self.version)
        self.epoch, self.version, self.count = diff["epoch"], diff["version"], diff["count"]
        if len(self.members) != diff["count"]:
            self._violation(
                "count", f"{len(self.members)} members after {_position(diff)} of count {diff['count']}"
            )

    def _replace_all(self, diff: Message) -> None:
        """The first diff of a new epoch holds all members."""
        reasons = {left["userId"]: left["reason"] for left in diff["left"]}
        former = self.members
        self.members = {member["userId"]: member for member in (*diff["joined"], *diff["updated"])}
        for user, member in former.items():
            if user not in self.members:
                if user not in reasons:
                    self._violation(
                        "departure", f"{user} is missing in {_position(diff)} without a departure"
                    )
                self._departed(user, member, reasons.get(user, "nothing"))
            elif self.members[user]["joinedAt"] != member["joinedAt"]:
                self._departed(user, member, reasons.get(user, "nothing"))

    def _apply_changes(self, diff: Message, *, overlaps: bool) -> None:
        merged = diff["version"] - diff["from"] > 1
        # A diff that begins before the snapshot repeats departures and joins of the snapshot.
        known = {(user, member["joinedAt"]) for user, member in self.members.items()} if overlaps else set()
        connected = known & {(one["userId"], one["joinedAt"]) for one in diff["joined"]}
        for left in diff["left"]:
            member = self.members.pop(left["userId"], None)
            if member is not None and (left["userId"], member["joinedAt"]) not in connected:
                self._departed(left["userId"], member, left["reason"])
            elif member is None and not (overlaps or merged):
                self._violation(
                    "departure", f"{left['userId']} left, but was not in the room: {_position(diff)}"
                )
        for member in diff["joined"]:
            if member["userId"] in self.members and not overlaps:
                self._violation(
                    "view", f"{member['userId']} joined, but was already in the room: {_position(diff)}"
                )
            self.members[member["userId"]] = member
        for member in diff["updated"]:
            before = self.members.get(member["userId"])
            if before is None and not overlaps:
                self._violation(
                    "view", f"{member['userId']} was updated, but was not in the room: {_position(diff)}"
                )
            if before is not None and not (overlaps or self._is_same_join(before, member)):
                text = f"{member['userId']} joined again, and its departure was not sent: {_position(diff)}"
                self._violation("departure", text)
            self.members[member["userId"]] = member

    def _is_same_join(self, before: Message, member: Message) -> bool:
        if before["joinedAt"] > member["joinedAt"]:  # Redis had lost the earlier joinedAt
            return self._history.just_lost(before["joinedAt"])
        return bool(before["joinedAt"] == member["joinedAt"])

    def _reset(self, snapshot: Message) -> None:
        self.epoch, self.version, self.count = snapshot["epoch"], snapshot["version"], snapshot["count"]
        if self.shown == "members":
            self.members = {member["userId"]: member for member in snapshot["members"]}
            if len(self.members) != snapshot["count"]:
                self._violation("count", f"{len(self.members)} members listed of {snapshot['count']}")

    def _departed(self, user: str, member: Message, reason: str) -> None:
        reported = ReportedDeparture(self.room, user, member["joinedAt"], reason, now_ms(), self.socket)
        self._history.reported.append(reported)

    def _violation(self, rule: str, text: str) -> None:
        messages = self._history.messages_of(self.socket, self.room)
        self._history.violation(rule, f"{self.socket} in {self.room}: {text}", *messages)


def _position(diff: Message) -> str:
    return f"{diff['epoch']} {diff['from']}-{diff['version']}"


def _differ(one: dict[str, int], other: dict[str, int]) -> str:
    ours, theirs = sorted(one.items() - other.items()), sorted(other.items() - one.items())
    return f"only in the diffs {ours}, only in the list {theirs}"
