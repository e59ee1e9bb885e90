"""Messages, member fields and departure reasons are declared once; whatever repeats them agrees with that.

They are declared in protocol/messages.py and requests.py, presence/rows.py and protocol/reasons.py. The
session, the wire's document, the types and the source of the JavaScript client, and the scripts repeat them.
"""

import re
from pathlib import Path
from typing import get_args

import msgspec
import pytest

from reactor.presence.rows import MEMBER_FIELDS, MemberRow
from reactor.protocol import messages, requests
from reactor.protocol.room import visible_fields
from reactor.protocol.session import Session

PACKAGE = Path(__file__).parents[3] / "reactor"
WIRE = (PACKAGE / "protocol" / "README.md").read_text("utf-8")
TYPES = (PACKAGE / "js" / "index.d.ts").read_text("utf-8")
Kind = type[msgspec.Struct]


def type_of(kind: Kind) -> str:
    return str(kind.__struct_config__.tag)


REQUESTS: dict[str, Kind] = {type_of(kind): kind for kind in get_args(requests.Request)}
MESSAGES: dict[str, Kind] = {type_of(kind): kind for kind in get_args(messages.ServerMessage)}


def declared(kind: Kind) -> dict[str, bool]:
    """The fields of a message but for `id`, and whether each is required."""
    return {one.encode_name: one.required for one in msgspec.structs.fields(kind) if one.name != "id"}


def rows_of_table(head: str) -> list[list[str]]:
    """The cells of the table in the wire's document that begins so."""
    table = WIRE[WIRE.index(head) :].partition("\n\n")[0]
    lines = table.splitlines()[2:]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]


def documented(cell: str) -> dict[str, bool]:
    """The fields that a cell begins with, and whether each is required: `roomId, data?: any JSON`."""
    plain = re.sub(r"\([^()]*\)|\{[^{}]*\}", "", cell).partition(". ")[0].partition(";")[0]
    found = {}
    for part in plain.split(", "):
        field = re.match(r"^(\w+)(\??)(?:\s*$|: )", part.strip())
        if field is None:
            break
        found[field[1]] = not field[2]
    return found


def interface(name: str) -> dict[str, bool]:
    """The fields of an interface of the JavaScript client, and whether each is required."""
    body = re.search(rf"interface {name}(?:<.*?>)?(?: extends \w+)? {{\n(.*?)\n}}", TYPES, re.DOTALL)
    assert body is not None, name
    return {field: not mark for field, mark in re.findall(r"^  (\w+)(\??): ", body[1], re.MULTILINE)}


class TestMessages:
    def test_the_session_handles_each_request(self):
        assert list(Session._HANDLERS) == list(REQUESTS.values())
        assert list(REQUESTS) == list(requests.TYPES)

    def test_the_document_has_each_request_with_its_fields(self):
        found = {}
        for types, fields, replies in rows_of_table("| client sends |"):
            for name in re.findall(r"`([\w:]+)`", types):
                found[name] = documented(fields)
            for name in re.findall(r"`(\w+:[\w:]+)`", replies):
                assert name in MESSAGES, name
        assert found == {name: declared(kind) for name, kind in REQUESTS.items()}

    def test_the_document_has_the_fields_of_each_reply_that_it_describes(self):
        for _, _, replies in rows_of_table("| client sends |"):
            for name, fields in re.findall(r"`([\w:]+)` \{([^}]*)\}", replies):
                described = {field: not mark for field, mark in re.findall(r"(\w+)(\??)", fields)}
                assert described == declared(MESSAGES[name]), name

    def test_the_document_has_each_message_with_its_fields(self):
        found = {}
        for types, fields in rows_of_table("| type | fields |"):
            for name in re.findall(r"`([\w:-]+)`", types):
                found[name] = documented(fields)
        replies = {name for name, kind in MESSAGES.items() if "id" in kind.__struct_fields__}
        both = {"room:count", "room:counts", "room:members", "room:force-leave", "error"}
        unsolicited = MESSAGES.keys() - replies | both
        expected = {name: declared(MESSAGES[name]) for name in unsolicited}
        expected["error"]["id"] = expected["room:force-leave"]["id"] = False
        assert found == expected

    def test_the_javascript_client_uses_only_declared_types(self):
        known = REQUESTS.keys() | MESSAGES.keys()
        for path in (PACKAGE / "js").glob("*.js"):
            used = re.findall(
                r'"((?:room|service|auth):[\w:-]+|auth|(?:join|leave)_room)"', path.read_text("utf-8")
            )
            assert set(used) <= known, path.name

    def test_the_questions_of_the_javascript_client_are_requests_and_their_replies(self):
        body = TYPES.partition("interface Questions {")[2].partition("\n}")[0]
        position = interface("Position")
        found = re.findall(r'"([\w:]+)": \{\s*ask: \{ (.*?) \};\s*reply: (.*?) \};?\n', body, re.DOTALL)
        assert len(found) == body.count("ask:") > 0
        for name, ask, reply in found:
            asked = {field: not mark for field, mark in re.findall(r"(\w+)(\??): ", ask)}
            assert asked == declared(REQUESTS[name]), name
            replied = {field: not mark for field, mark in re.findall(r"(\w+)(\??): ", reply)}
            if "Position" in reply:
                replied |= position
            assert replied == declared(MESSAGES[name]), name

    def test_the_javascript_client_has_the_fields_of_a_message_to_a_room(self):
        assert interface("RoomMessage") == declared(messages.RoomMessage)


class TestMemberFields:
    def test_the_scripts_read_each_of_them(self):
        """The loader gives the scripts the names in this order; read_member makes a value of each."""
        library = (PACKAGE / "presence/lua/lib/members.lua").read_text("utf-8")
        read_member = library.partition("function read_member(")[2].partition("\nend\n")[0]
        places = {int(place) for place in re.findall(r"row\[(\d+)\]", read_member)}
        assert places == set(range(1, len(MEMBER_FIELDS) + 1))

    def test_a_field_that_was_added_later_has_a_default(self):
        """Nodes of an earlier version publish rows without it."""
        first = ("userId", "username", "data", "joinedAt", "lastActiveAt", "away", "connections")
        assert tuple(MEMBER_FIELDS)[: len(first)] == first
        assert not any(one.required for one in msgspec.structs.fields(MemberRow)[len(first) :])

    @pytest.mark.parametrize("described", ["message", "document", "JavaScript type"])
    def test_are_the_same_in_each_description(self, described: str):
        if described == "message":
            assert set(declared(messages.Member)) == set(MEMBER_FIELDS)
        elif described == "document":
            fields = re.search(r"A member is \{(.*?)\}", WIRE)
            assert fields is not None
            optional = {field for field, mark in re.findall(r"(\w+)(\??)", fields[1]) if mark}
            assert set(re.findall(r"\w+", fields[1])) == set(MEMBER_FIELDS)
            assert optional == {"data"}
        else:
            fields_of_type = interface("Member")
            assert set(fields_of_type) == set(MEMBER_FIELDS)
            assert [field for field, required in fields_of_type.items() if not required] == ["data"]

    def test_other_members_are_notified_of_every_field_but_identity_and_times(self):
        member = messages.Member("ann", "Ann", 1, 2, data=3)
        unseen = {"userId": "bob", "joinedAt": 5, "lastActiveAt": 6}
        for field in msgspec.structs.fields(messages.Member):
            other = msgspec.structs.replace(member, **{field.name: unseen.get(field.encode_name, "other")})
            changed = visible_fields(other) != visible_fields(member)
            assert changed is (field.encode_name not in unseen), field.name
