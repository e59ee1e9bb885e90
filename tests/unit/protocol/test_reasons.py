"""Departure reasons: an open vocabulary, declared once."""

import re
from pathlib import Path

import msgspec

from reactor.presence.rows import decode_diff, is_unknown_kind
from reactor.protocol.reasons import REASONS, leave_reason

ROOT = Path(__file__).parents[3]
PACKAGE = ROOT / "reactor"


def test_an_unknown_reason_expels_and_its_text_is_in_the_message():
    moved = leave_reason("moved")
    assert moved.expels
    assert moved.message is not None
    assert "moved" in moved.message


def test_only_a_lost_connection_does_not_expel():
    assert {name for name, reason in REASONS.items() if not reason.expels} == {"disconnected"}


def test_a_diff_with_an_unknown_reason_and_further_elements_is_read():
    row = ["e", 1, 2, 0, [], [], [["ann", "moved", 5, "", 0, "moderator"]], "more"]
    diff = decode_diff(msgspec.msgpack.encode(row)).diff("lobby")
    assert [(left.user_id, left.reason) for left in diff.left] == [("ann", "moved")]


def test_kinds_of_publication_that_a_later_version_may_add_are_told_from_diffs():
    assert [is_unknown_kind(payload) for payload in (b"+{}", b"%", b"/1")] == [True] * 3
    known = (
        b'!5 {"a": 1}',
        b'#5 ["ann","n1.1",null,1]',
        b"",
        b"nonsense",
        msgspec.msgpack.encode([1] * 3),
        msgspec.msgpack.encode([1] * 20),
    )
    assert [is_unknown_kind(payload) for payload in known] == [False] * 6


def test_the_scripts_the_types_and_the_documents_have_the_same_reasons():
    scripts = "\n".join(path.read_text("utf-8") for path in (PACKAGE / "presence/lua").rglob("*.lua"))
    for name in REASONS:
        assert f"'{name}'" in scripts, name
    types = (PACKAGE / "js/index.d.ts").read_text("utf-8")
    declared = re.search(r"export type LeaveReason = (.+);", types)
    assert declared is not None
    assert re.findall(r'"(\w+)"', declared[1]) == list(REASONS)
    assert declared[1].endswith("(string & {})"), "any other text is a reason too"
