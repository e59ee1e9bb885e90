"""A room as one socket is told of it: the snapshot and then every diff, taken by the letter.

Whatever does not join on is a trouble, with the messages around it.
"""

from typing import Any

from tests.chaos.history import History, Told, now_ms

Message = dict[str, Any]


class View:
    """`members` is by user id, as told; of a room that is told as a count only `count` is there."""

    def __init__(self, history: History, room: str, socket: str) -> None:
        self._history, self.room, self.socket = history, room, socket
        self.epoch, self.version, self.count = "", 0, 0
        self.members: dict[str, Message] = {}
        self.shown = "members"

    def begin(self, joined: Message) -> None:
        """Take the snapshot of a joining."""
        self.shown = joined["view"]
        self._reset(joined)

    def listing(self, reply: Message) -> None:
        """A list that was asked for; where it is of the very position that was told, it says the same."""
        if self.shown != "members" or "members" not in reply:
            return
        if (reply["epoch"], reply["version"]) == (self.epoch, self.version):
            listed = {member["userId"]: member["joinedAt"] for member in reply["members"]}
            known = {user: member["joinedAt"] for user, member in self.members.items()}
            if listed != known:
                self._trouble("view", f"the list differs from what was told: {_differ(known, listed)}")
        elif reply["epoch"] == self.epoch and reply["version"] < self.version:
            return  # overtaken by diffs
        self._reset(reply)

    def counted(self, told: Message) -> None:
        """The count, told unasked to those who chose that view."""
        if self.shown == "count":
            if told["epoch"] == self.epoch and told["version"] < self.version:
                self._trouble("view", f"a count of {told['version']} after one of {self.version}")
            self.epoch, self.version, self.count = told["epoch"], told["version"], told["count"]

    def apply(self, diff: Message) -> None:
        """Take a diff."""
        if diff["epoch"] != self.epoch:
            if diff["from"] != 0:
                self._trouble("gap", f"{_place(diff)} does not join on to {self.epoch} {self.version}")
            self._anew(diff)
        elif diff["version"] <= self.version:
            return
        else:
            if diff["from"] > self.version:
                self._trouble("gap", f"{_place(diff)} does not join on to {self.epoch} {self.version}")
            self._move_on(diff, overlaps=diff["from"] < self.version)
        self.epoch, self.version, self.count = diff["epoch"], diff["version"], diff["count"]
        if len(self.members) != diff["count"]:
            self._trouble(
                "count", f"{len(self.members)} members after {_place(diff)} of count {diff['count']}"
            )

    def _anew(self, diff: Message) -> None:
        """A fresh epoch is told whole."""
        reasons = {left["userId"]: left["reason"] for left in diff["left"]}
        former = self.members
        self.members = {member["userId"]: member for member in (*diff["joined"], *diff["updated"])}
        for user, member in former.items():
            if user not in self.members:
                if user not in reasons:
                    self._trouble("departure", f"{user} is gone from {_place(diff)} without a reason")
                self._departed(user, member, reasons.get(user, "nothing"))
            elif self.members[user]["joinedAt"] != member["joinedAt"]:
                self._departed(user, member, reasons.get(user, "nothing"))

    def _move_on(self, diff: Message, *, overlaps: bool) -> None:
        merged = diff["version"] - diff["from"] > 1
        # One who took a snapshot half-way hears of ends before it, and of the joining that it knows already.
        known = {(user, member["joinedAt"]) for user, member in self.members.items()} if overlaps else set()
        here = known & {(one["userId"], one["joinedAt"]) for one in diff["joined"]}
        for left in diff["left"]:
            member = self.members.pop(left["userId"], None)
            if member is not None and (left["userId"], member["joinedAt"]) not in here:
                self._departed(left["userId"], member, left["reason"])
            elif member is None and not (overlaps or merged):
                self._trouble("departure", f"{left['userId']} left, but was not there: {_place(diff)}")
        for member in diff["joined"]:
            if member["userId"] in self.members and not overlaps:
                self._trouble("view", f"{member['userId']} joined, but was there: {_place(diff)}")
            self.members[member["userId"]] = member
        for member in diff["updated"]:
            before = self.members.get(member["userId"])
            if before is None and not overlaps:
                self._trouble("view", f"{member['userId']} changed, but was not there: {_place(diff)}")
            if before is not None and not (overlaps or self._same_joining(before, member)):
                text = f"{member['userId']} joined anew, and its departure was not told: {_place(diff)}"
                self._trouble("departure", text)
            self.members[member["userId"]] = member

    def _same_joining(self, before: Message, member: Message) -> bool:
        if before["joinedAt"] > member["joinedAt"]:  # Redis had lost since when it is there
            return self._history.just_lost(before["joinedAt"])
        return bool(before["joinedAt"] == member["joinedAt"])

    def _reset(self, snapshot: Message) -> None:
        self.epoch, self.version, self.count = snapshot["epoch"], snapshot["version"], snapshot["count"]
        if self.shown == "members":
            self.members = {member["userId"]: member for member in snapshot["members"]}
            if len(self.members) != snapshot["count"]:
                self._trouble("count", f"{len(self.members)} members listed of {snapshot['count']}")

    def _departed(self, user: str, member: Message, reason: str) -> None:
        told = Told(self.room, user, member["joinedAt"], reason, now_ms(), self.socket)
        self._history.told.append(told)

    def _trouble(self, rule: str, text: str) -> None:
        heard = self._history.heard(self.socket, self.room)
        self._history.trouble(rule, f"{self.socket} in {self.room}: {text}", *heard)


def _place(diff: Message) -> str:
    return f"{diff['epoch']} {diff['from']}-{diff['version']}"


def _differ(one: dict[str, int], other: dict[str, int]) -> str:
    return (
        f"only told {sorted(one.items() - other.items())}, only listed {sorted(other.items() - one.items())}"
    )
