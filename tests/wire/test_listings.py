"""For anything that a server may send of a room, both clients report the same events in the same order."""

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from reactor.client.reported_room import ReportedRoom
from reactor.protocol import messages
from tests.js.tools import run_node

Step = tuple[str, dict[str, Any]]

_USERS = ["me", "ann", "bob", "cy", "dee"]


class Room:
    """A room that changes at random, and what a server would send of it."""

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance
        self._clock = 1000
        self._epochs = 0
        self.members: dict[str, dict[str, Any]] = {}
        self.renew()

    def renew(self) -> None:
        """Begin another epoch, with an empty room: Redis lost its data."""
        self._epochs += 1
        self.epoch, self.version = f"epoch {self._epochs}", 0
        self.members = {}

    def change(self) -> dict[str, Any]:
        """Change something, and give the diff."""
        joined: list[dict[str, Any]] = []
        updated: list[dict[str, Any]] = []
        left: list[dict[str, str]] = []
        start = self.version
        users = self._chance.sample(_USERS, self._chance.choice([1, 1, 1, 2, 3]))
        for user in users:
            self.version += 1
            self._clock += 1
            present = self.members.get(user)
            move = self._chance.choice(["come", "go", "touch", "return"] if present else ["come"])
            if move in ("go", "return") and present:
                del self.members[user]
                left.append({"userId": user, "reason": self._chance.choice(["left", "kicked"])})
                if move == "go":
                    continue
                present = None
            member = dict(present or {"userId": user, "username": user, "joinedAt": self._clock})
            member |= {"lastActiveAt": self._clock, "away": self._chance.random() < 0.3, "connections": 1}
            if self._chance.random() < 0.5:
                member["data"] = self._chance.choice([1, None, {"b": 1, "a": [2]}, {"a": [2], "b": 1}])
            self.members[user] = member
            (updated if present else joined).append(member)
        return {
            "roomId": "lobby", "epoch": self.epoch, "from": start, "version": self.version,
            "count": len(self.members), "joined": joined, "updated": updated, "left": left,
        }  # fmt: skip

    def snapshot(self) -> dict[str, Any]:
        position = {"roomId": "lobby", "epoch": self.epoch, "version": self.version}
        return {**position, "count": len(self.members), "members": list(self.members.values())}


def history(seed: int) -> Iterator[Step]:
    """What one client receives: mostly in order, with losses, repetitions, stale messages and outages."""
    chance = random.Random(seed)
    room = Room(chance)
    room.change()
    old = [room.change()]
    yield "joined", {**room.snapshot(), "view": "members"}
    kinds = ["change", "missed", "again", "listed", "lose", "renew", "settle", "count", "stale"]
    for kind in chance.choices(kinds, [50, 10, 8, 8, 6, 4, 6, 4, 4], k=40):
        match kind:
            case "change":
                old.append(room.change())
                yield "diff", old[-1]
            case "missed":
                room.change()
            case "again":
                yield "diff", chance.choice(old)
            case "listed":
                yield "listed", room.snapshot()
            case "lose":
                yield "lose", {}
                room.change()
                yield "joined", {**room.snapshot(), "view": "members"}
            case "renew":
                room.renew()
            case "settle":
                yield "settle", {}
            case "count":
                yield "count", {key: value for key, value in room.snapshot().items() if key != "members"}
            case _:
                stale = room.snapshot()
                yield "diff", room.change()
                yield "listed", stale


def in_python(steps: list[Step]) -> list[dict[str, Any]]:
    listing = ReportedRoom("lobby", "me")
    reported = []
    for move, message in steps:
        match move:
            case "joined":
                more = {"userId": "me", "socketId": "", "ttl": 1, "heartbeatInterval": 1, "resumed": False}
                events = listing.joined(
                    msgspec.convert({"type": "room:joined", **more, **message}, messages.RoomJoined)
                )
            case "listed":
                reply = msgspec.convert({"type": "room:members", **message}, messages.MembersReply)
                events = listing.listed(reply)
            case "count":
                events = listing.count_changed(
                    msgspec.convert({"type": "room:count", **message}, messages.CountReply)
                )
            case "diff":
                events = listing.diff(msgspec.convert({"type": "room:diff", **message}, messages.RoomDiff))
            case "settle":
                events = listing.settle()
            case _:
                listing.connection_lost()
                events = []
        reported.append(
            {
                "events": msgspec.to_builtins(events),
                "members": sorted(listing.members),
                "count": listing.count,
                "served": listing.served,
                "incomplete": listing.needs_snapshot,
                "unsettled": listing.unsettled,
            }
        )
    return reported


def _sorted(step: dict[str, Any]) -> dict[str, Any]:
    """A step without what is left to each language: the order of what happened together."""
    events = [
        {**event, "members": sorted(event.get("members", []), key=_user)}
        if event["kind"] == "sync"
        else event
        for event in step["events"]
    ]
    return {**step, "events": sorted(events, key=lambda event: (event["kind"], _user(event.get("member"))))}


def _user(member: dict[str, Any] | None) -> str:
    return str(member["userId"]) if member else ""


@pytest.mark.parametrize("start", [0, 1000])
async def test_both_clients_report_the_same_events_for_any_history(tmp_path: Path, start: int):
    histories = [list(history(seed)) for seed in range(start, start + 400)]
    file = tmp_path / "histories.json"
    file.write_text(json.dumps(histories), encoding="utf-8")
    for number, (steps, there) in enumerate(
        zip(histories, json.loads(await run_node("listings.mjs", file)), strict=True)
    ):
        here = in_python(steps)
        for step, mine, theirs in zip(steps, here, there, strict=True):
            assert _sorted(theirs) == _sorted(mine), (start + number, step)
