"""A session under any order of requests, replies and expulsions, compared with what Redis would hold."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from reactor.protocol import requests
from reactor.protocol.intents import Intent, Join, Leave, Refresh, SetAway, UpdateMember
from reactor.protocol.limits import Limits
from reactor.protocol.membership import MembershipState
from reactor.protocol.messages import ProtocolError
from reactor.protocol.session import Session

LIMITS = Limits(max_rooms=3, max_pending=4)
ROOMS = ["a", "b", "__proto__", "d"]
rooms = st.sampled_from(ROOMS)
users = st.sampled_from(["ann", "bob"])
SAME_ROOM = [
    requests.Heartbeat,
    requests.Update,
    requests.Away,
    requests.Back,
    requests.Members,
    requests.Count,
    requests.LeaveRoom,
]


def number_of(request: requests.Request) -> int:
    assert isinstance(request.id, int)
    return request.id


class Connection(RuleBasedStateMachine):
    """Plays client and node; each request is numbered by its id."""

    def __init__(self) -> None:
        super().__init__()
        self.begin()

    def begin(self) -> None:
        self.session = Session(LIMITS)
        self.redis: dict[str, str] = {}
        self.under_way: dict[str, Intent] = {}
        self.sent: dict[int, requests.Request] = {}
        self.done: list[int] = []
        self.turned_away: list[int] = []

    def receive(self, request: requests.Request, *, again: bool = False) -> None:
        number = number_of(request)
        try:
            intent = self.session.receive(request)
        except ProtocolError as refused:
            error = refused
        else:
            if intent is not None:
                self.done.append(number)
                self.follow(intent, number)
            return
        assert error.id == number
        if error.code == "too_many_pending":
            assert not again
            self.turned_away.append(number)
        else:
            self.done.append(number)

    def follow(self, intent: Intent, number: int) -> None:
        assert intent.id == number
        match intent:
            case Join(room_id=room):
                assert room not in self.under_way
                self.under_way[room] = intent
            case Leave(membership=place):
                assert self.redis[place.room_id] == place.user_id
                assert place.room_id not in self.under_way
                self.under_way[place.room_id] = intent
            case Refresh(memberships=places) | SetAway(memberships=places):
                for place in places:
                    assert self.redis[place.room_id] == place.user_id
                    assert place.room_id not in self.under_way
            case UpdateMember(membership=place):
                assert self.redis[place.room_id] == place.user_id

    def send(self, request: requests.Request) -> None:
        self.sent[number_of(request)] = request
        self.receive(request)

    def number(self) -> int:
        return len(self.sent)

    @rule(room=rooms, user=users)
    def join(self, room: str, user: str) -> None:
        self.send(requests.JoinRoom(room, user, id=self.number()))

    @rule(room=rooms, kind=st.sampled_from(SAME_ROOM))
    def ask_in_one(self, room: str, kind: type) -> None:
        self.send(kind(room, id=self.number()))

    @rule(kind=st.sampled_from([requests.Heartbeat, requests.Away, requests.Back]))
    def ask_for_all(self, kind: type) -> None:
        self.send(kind(id=self.number()))

    @precondition(lambda self: self.under_way)
    @rule(data=st.data(), taken=st.booleans())
    def answer(self, data, taken: bool) -> None:
        room = data.draw(st.sampled_from(sorted(self.under_way)))
        intent = self.under_way.pop(room)
        if not taken:
            waited = self.session.refused(room)
        elif isinstance(intent, Join):
            self.redis[room] = intent.user_id
            waited = self.session.joined(room)
        else:
            self.redis.pop(room, None)
            waited = self.session.left(room)
        for request in waited:
            self.receive(request, again=True)

    @precondition(lambda self: self.redis)
    @rule(data=st.data())
    def expel(self, data) -> None:
        room = data.draw(st.sampled_from(sorted(self.redis)))
        # One that ends while its leave is on its way ends by the leave.
        if not isinstance(self.under_way.get(room), Leave):
            del self.redis[room]
            assert self.session.expelled(room) is not bool(self.session.rooms)

    @rule(rare=st.integers(0, 9))
    def close(self, rare: int) -> None:
        if rare:
            return
        detached = {place.room_id for place in self.session.close()}
        assert detached == self.redis.keys() | self.under_way.keys()
        for room in list(self.under_way):
            assert self.session.joined(room) == []
        self.begin()

    @invariant()
    def the_session_knows_what_redis_holds(self) -> None:
        places = self.session.rooms
        assert places.keys() == self.redis.keys() | self.under_way.keys()
        assert {room for room, place in places.items() if place.state is MembershipState.IN} == (
            self.redis.keys() - self.under_way.keys()
        )
        assert len(places) <= LIMITS.max_rooms

    @invariant()
    def every_request_is_done_or_waits(self) -> None:
        waiting = [number_of(request) for held in self.session._deferred.values() for request in held]
        assert len(waiting) <= LIMITS.max_pending
        assert self.session._deferred_count == len(waiting)
        assert sorted([*self.done, *self.turned_away, *waiting]) == list(self.sent)
        assert self.session._deferred.keys() <= self.under_way.keys()

    @invariant()
    def requests_for_a_room_keep_their_order(self) -> None:
        for room in ROOMS:
            mine = [number for number in self.done if getattr(self.sent[number], "room_id", None) == room]
            assert mine == sorted(mine)


TestConnection = Connection.TestCase
TestConnection.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
