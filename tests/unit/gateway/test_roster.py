from hypothesis import given
from hypothesis import strategies as st

from reactor.gateway.roster import Roster


def test_add_and_remove_report_the_first_and_the_last_connection_of_a_room():
    roster: Roster[str] = Roster()
    assert roster.add("r", "u", "c1", "members")
    assert not roster.add("r", "v", "c2", "members")
    assert not roster.remove("r", "c1")
    assert "r" in roster
    assert roster.remove("r", "c2")
    assert "r" not in roster
    assert len(roster) == 0
    assert not roster.remove("r", "c2")
    assert roster.add("r", "u", "c1", "members")


def test_connections_are_found_by_user_and_by_view():
    roster: Roster[str] = Roster()
    roster.add("r", "u", "phone", "members")
    roster.add("r", "u", "laptop", "count")
    roster.add("r", "v", "tablet", "none")
    roster.add("s", "u", "phone", "members")
    assert roster.connections_of("r", "u") == ("phone", "laptop")
    assert roster.connections_of("r", "nobody") == roster.connections_of("nowhere", "u") == ()
    assert {view: set(sockets) for view, sockets in roster.views("r").items()} == {
        "members": {"phone"},
        "count": {"laptop"},
        "none": {"tablet"},
    }
    assert dict(roster.views("nowhere")) == {}
    assert sorted(roster) == ["r", "s"]
    roster.remove("r", "phone")
    assert roster.connections_of("r", "u") == ("laptop",)
    assert "members" not in roster.views("r")
    assert roster.connections_of("s", "u") == ("phone",)


def test_a_connection_that_joins_again_changes_its_view_and_is_listed_once():
    roster: Roster[str] = Roster()
    assert roster.add("r", "u", "c", "members")
    assert not roster.add("r", "u", "c", "count")
    assert roster.connections_of("r", "u") == ("c",)
    assert list(roster.views("r")) == ["count"]
    assert not roster.add("r", "w", "c", "count")
    assert roster.connections_of("r", "u") == ()
    assert roster.remove("r", "c")


def test_count_only_is_forgotten_with_the_last_connection():
    roster: Roster[str] = Roster()
    roster.set_count_only("r", count_only=True)
    assert not roster.is_count_only("r")
    roster.add("r", "u", "c", "members")
    roster.set_count_only("r", count_only=True)
    roster.add("r", "u", "c", "count")
    assert roster.is_count_only("r")
    roster.remove("r", "c")
    roster.add("r", "u", "c", "members")
    assert not roster.is_count_only("r")


rooms, users, sockets = st.sampled_from("rst"), st.sampled_from("uvw"), st.sampled_from("abcd")
views = st.sampled_from(["members", "count", "none"])


@given(st.lists(st.one_of(st.tuples(rooms, users, sockets, views), st.tuples(rooms, sockets)), max_size=40))
def test_the_roster_equals_a_plain_table(steps):
    roster: Roster[str] = Roster()
    table: dict[tuple[str, str], tuple[str, str]] = {}
    for step in steps:
        room, before = step[0], {room for room, _ in table}
        if len(step) == 4:
            _, user, socket, view = step
            table[room, socket] = user, view
            assert roster.add(room, user, socket, view) == (room not in before)
        else:
            table.pop(step, None)
            gone = room in before and room not in {room for room, _ in table}
            assert roster.remove(*step) == gone
        for room in "rst":
            here = {socket: place for (its_room, socket), place in table.items() if its_room == room}
            assert (room in roster) == bool(here)
            for user in "uvw":
                assert sorted(roster.connections_of(room, user)) == sorted(
                    s for s, (u, _) in here.items() if u == user
                )
            assert {(s, v) for v, ss in roster.views(room).items() for s in ss} == {
                (s, v) for s, (_, v) in here.items()
            }


def test_observers_are_no_members_and_keep_a_room_in_the_roster():
    roster: Roster[str] = Roster()
    assert roster.observe("r", "page", "members")
    assert not roster.observe("r", "page", "count")
    assert (len(roster), roster.members, roster.users("r"), "r" in roster) == (0, 0, frozenset(), True)
    assert not roster.add("r", "u", "page", "members")
    assert not roster.observe("r", "other", "members")
    assert list(roster.views("r")) == ["members"]
    roster.set_count_only("r", count_only=True, observers=True)
    assert (roster.is_count_only("r"), roster.is_count_only("r", observers=True)) == (False, True)
    assert not roster.remove("r", "page")
    assert {view: list(found) for view, found in roster.observers("r").items()} == {
        "count": ["page"],
        "members": ["other"],
    }
    assert not roster.unobserve("r", "page")
    assert not roster.unobserve("r", "page")
    assert roster.unobserve("r", "other")
    assert "r" not in roster
