"""A room as one client receives it: the snapshot and then every diff, applied strictly."""

from collections.abc import Iterable
from typing import Any

from tests.support.raw_client import Message, RawClient


class Replay:
    """Applies what a client received of one room, and fails on a diff that does not continue the last one.

    After an outage of Redis an update may also be of a member that was not in the list meanwhile.
    `members` is by user id, `departures` and `arrivals` what was sent about each user, in order.
    """

    def __init__(self, room_id: str, *, after_outage: bool = False) -> None:
        self.room_id = room_id
        self.after_outage = after_outage
        self.inside = False
        self.epoch = ""
        self.version = 0
        self.members: dict[str, Any] = {}
        self.departures: list[tuple[str, str]] = []
        self.arrivals: list[str] = []

    @classmethod
    def of(cls, client: RawClient, room_id: str, *, after_outage: bool = False) -> "Replay":
        replay = cls(room_id, after_outage=after_outage)
        replay.take_all(client.received)
        return replay

    def take_all(self, heard: Iterable[Message]) -> None:
        for message in heard:
            if message.get("roomId") == self.room_id:
                self._take(message)

    def _take(self, message: Message) -> None:
        match message["type"]:
            case "room:joined":
                self.inside = True
                self._reset(message)
            case "room:members":
                # An answer may have been overtaken by diffs that are newer.
                if message["epoch"] != self.epoch or message["version"] >= self.version:
                    self._reset(message)
            case "room:left" | "room:force-leave":
                self.inside = False
            case "room:diff":
                assert self.inside, f"news of a room that was left: {message}"
                self._apply(message)

    def _reset(self, snapshot: Message) -> None:
        self.epoch, self.version = snapshot["epoch"], snapshot["version"]
        self.members = {member["userId"]: member for member in snapshot["members"]}
        assert len(self.members) == snapshot["count"], snapshot

    def _apply(self, diff: Message) -> None:
        if diff["epoch"] != self.epoch:
            assert diff["from"] == 0, f"a gap: {diff} at {self.epoch}/{self.version}"
            self.epoch, self.version, self.members = diff["epoch"], 0, {}
        elif diff["version"] <= self.version:
            return
        assert diff["from"] <= self.version, f"a gap: {diff} at {self.version}"
        strict = diff["from"] == self.version
        for left in diff["left"]:
            known = self.members.pop(left["userId"], None)
            if strict and known is not None:
                self.departures.append((left["userId"], left["reason"]))
        for member in diff["joined"]:
            if strict:
                assert member["userId"] not in self.members, f"joined twice: {diff}"
                self.arrivals.append(member["userId"])
            self.members[member["userId"]] = member
        for member in diff["updated"]:
            if strict and not self.after_outage:
                assert member["userId"] in self.members, f"updated, but not there: {diff}"
            self.members[member["userId"]] = member
        self.version = diff["version"]
        assert len(self.members) == diff["count"], f"{sorted(self.members)} is not the count of {diff}"
