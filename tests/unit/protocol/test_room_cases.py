"""The cases that every reader of a room passes; other clients run the same file."""

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from reactor.protocol.messages import Departed, Member, RoomDiff
from reactor.protocol.room import RoomView, diff_between, merge

CASES = json.loads((Path(__file__).parents[2] / "cases" / "room.json").read_text(encoding="utf-8"))
MEMBERS = {name: msgspec.convert(fields, Member) for name, fields in CASES["people"].items()}


def members(names: list[str]) -> list[Member]:
    return [MEMBERS[name] for name in names]


def diff_of(case: dict[str, Any]) -> RoomDiff:
    return RoomDiff(
        room_id="lobby",
        epoch=case["epoch"],
        from_=case["from"],
        version=case["version"],
        count=case["count"],
        joined=members(case["joined"]),
        updated=members(case["updated"]),
        left=[Departed(one["userId"], one["reason"]) for one in case["left"]],
    )


def step(view: RoomView, case: dict[str, Any]) -> str | None:
    if snapshot := case.get("reset"):
        return view.reset(snapshot["epoch"], snapshot["version"], members(snapshot["members"])).value
    if answer := case.get("resume"):
        diffs = [diff_of({**diff, "epoch": answer["epoch"]}) for diff in answer["diffs"]]
        return view.resume(answer["epoch"], answer["version"], diffs).value
    if diff := case.get("apply"):
        return view.apply(diff_of(diff)).value
    if case.get("lose"):
        view.invalidate()
    return None


@pytest.mark.parametrize("case", CASES["views"], ids=lambda case: case["name"])
def test_a_view_follows_its_room(case: dict[str, Any]):
    view = RoomView("lobby")
    for number, one in enumerate(case["steps"]):
        assert step(view, one) == one.get("result"), f"step {number}"
        if then := one.get("then"):
            assert (view.epoch, view.version, view.count, view.waiting) == (
                then["epoch"],
                then["version"],
                then["count"],
                then["waiting"],
            ), f"step {number}"
            assert view.members == {member.user_id: member for member in members(then["members"])}
            assert len(view.members) == len(then["members"])


@pytest.mark.parametrize("case", CASES["merges"], ids=lambda case: case["name"])
def test_merged_diffs(case: dict[str, Any]):
    assert merge([diff_of(diff) for diff in case["diffs"]]) == diff_of(case["merged"])


@pytest.mark.parametrize("case", CASES["differences"], ids=lambda case: case["name"])
def test_the_difference_between_two_lists(case: dict[str, Any]):
    old = {member.user_id: member for member in members(case["old"])}
    joined, updated, left = diff_between(old, members(case["new"]), "kicked")
    assert (joined, updated) == (members(case["joined"]), members(case["updated"]))
    assert left == [Departed(user_id, "kicked") for user_id in case["left"]]
