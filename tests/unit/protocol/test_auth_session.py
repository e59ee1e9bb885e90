"""A session that requires authentication: no request passes without it, or as another user."""

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from reactor.protocol import intents, requests
from reactor.protocol.auth_session import AUTH_TRANSITIONS, AuthEvent, AuthSession, AuthState
from reactor.protocol.identity import Identity, Unauthorised, checked
from reactor.protocol.limits import Limits
from reactor.protocol.messages import ProtocolError
from reactor.protocol.state_table import IllegalEvent
from tests.unit.protocol.sessions import refused

ANN = Identity("ann", ("lobby", "game-*"), "Ann", {"n": 1}, 2e9)
AUTH = requests.Auth("token", id=1)

OF_ALL_KINDS: list[requests.Request] = [
    requests.JoinRoom("lobby", "ann", id=2),
    requests.Heartbeat(id=2),
    requests.Heartbeat("lobby", id=2),
    requests.Update("lobby", id=2),
    requests.Away(id=2),
    requests.Back("lobby", id=2),
    requests.Members("lobby", id=2),
    requests.Count("lobby", id=2),
    requests.IsPresent("lobby", "bob", id=2),
    requests.LeaveRoom("lobby", id=2),
]


def authenticated(identity: Identity = ANN) -> AuthSession:
    session = AuthSession(Limits(max_pending=4))
    session.receive(AUTH)
    session.token_accepted(identity)
    return session


def joined(room_id: str = "lobby") -> AuthSession:
    session = authenticated()
    session.receive(requests.JoinRoom(room_id))
    session.joined(room_id)
    return session


def code_of(session: AuthSession, request: requests.Request) -> str:
    return refused(session, request).code


# Before the first token is accepted.


@pytest.mark.parametrize("request_", OF_ALL_KINDS, ids=lambda one: type(one).__name__)
def test_without_a_token_every_request_is_refused(request_):
    error = refused(AuthSession(Limits()), request_)
    assert (error.code, error.id, error.room_id) == ("unauthorized", 2, request_.room_id)


def test_requests_are_to_be_kept_until_the_first_token_is_checked():
    session = AuthSession(Limits())
    assert session.receive(AUTH) == intents.Authenticate("token", 1)
    assert session.receive(OF_ALL_KINDS[0]) is None
    assert session.checks_first_token
    assert code_of(session, AUTH) == "too_many_pending"
    session.token_accepted(ANN)
    assert session.identity is ANN
    assert isinstance(session.receive(OF_ALL_KINDS[0]), intents.Join)
    session.receive(AUTH)
    assert not session.checks_first_token  # it is authenticated meanwhile


def test_a_refused_first_token_rejects_the_connection():
    session = AuthSession(Limits())
    session.receive(AUTH)
    session.receive(OF_ALL_KINDS[0])
    assert session.token_refused()
    assert session.receive(AUTH) is None
    assert session.receive(OF_ALL_KINDS[0]) is None
    assert session.identity is None


def test_an_outcome_after_the_close_is_ignored():
    session = AuthSession(Limits())
    session.receive(AUTH)
    assert session.close() == []
    session.token_accepted(ANN)
    assert session.identity is None
    assert session.receive(OF_ALL_KINDS[0]) is None


def test_an_outcome_without_a_check_is_illegal():
    with pytest.raises(IllegalEvent):
        AuthSession(Limits()).token_accepted(ANN)
    with pytest.raises(IllegalEvent):
        authenticated().token_refused()


# Binding requests to the identity.


def test_missing_fields_are_filled_in_from_the_identity():
    join = authenticated().receive(requests.JoinRoom("lobby"))
    assert join == intents.Join("lobby", "ann", "Ann", b'{"n":1}', "members", None)
    update = joined().receive(requests.Update("lobby"))
    assert isinstance(update, intents.UpdateMember)
    assert (update.username, update.data_json) == ("Ann", b'{"n":1}')


def test_fields_that_match_the_identity_are_accepted():
    assert authenticated().receive(requests.JoinRoom("lobby", "ann", "Ann", {"n": 1})) is not None
    assert authenticated(Identity("42", ("*",))).receive(
        requests.JoinRoom("lobby", 42, "Any", [1])
    ) == intents.Join("lobby", "42", "Any", b"[1]", "members", None)


@pytest.mark.parametrize(
    "request_",
    [
        requests.JoinRoom("lobby", "bob", id=2),
        requests.JoinRoom("lobby", 42, id=2),
        requests.JoinRoom("lobby", username="Bob", id=2),
        requests.JoinRoom("lobby", data=None, id=2),
        requests.JoinRoom("lobby", data={"n": 2}, id=2),
        requests.JoinRoom("Lobby", "ann", id=2),
        requests.JoinRoom("game", id=2),
        requests.JoinRoom("a game-1", id=2),
        requests.Members("other", id=2),
        requests.Count("other", id=2),
        requests.IsPresent("other", "ann", id=2),
        requests.Update("lobby", "Bob", id=2),
        requests.Update("lobby", data={}, id=2),
    ],
)
def test_fields_that_differ_from_the_identity_are_forbidden(request_):
    error = refused(joined(), request_)
    assert (error.code, error.id, error.room_id) == ("forbidden", 2, request_.room_id)


def test_an_invalid_id_is_reported_as_such():
    assert code_of(authenticated(), requests.JoinRoom("", id=2)) == "bad_id"
    assert code_of(authenticated(), requests.JoinRoom("lobby", "a\nb", id=2)) == "bad_id"


def test_other_users_may_be_asked_about_in_allowed_rooms():
    assert authenticated().receive(requests.IsPresent("game-7", "bob")) == intents.AskPresent(
        "game-7", "bob", None
    )


# A fresh token.


def test_a_fresh_token_replaces_the_previous_identity():
    session = joined()
    fresh = Identity("ann", ("lobby",), None, None, 3e9)
    session.receive(AUTH)
    assert session.receive(requests.Heartbeat("lobby")) is not None, "all goes on while it is checked"
    session.token_accepted(fresh)
    assert session.identity is fresh
    assert session.forbidden_room() is None
    assert code_of(session, requests.Count("game-1")) == "forbidden"


def test_a_fresh_token_of_another_user_changes_nothing():
    session = joined()
    session.receive(AUTH)
    with pytest.raises(ProtocolError, match="another user") as caught:
        session.token_accepted(Identity("bob", ("*",)))
    assert caught.value.code == "forbidden"
    assert session.identity is ANN
    assert session.auth_state is AuthState.AUTHENTICATED


def test_a_fresh_token_that_is_refused_changes_nothing():
    session = joined()
    session.receive(AUTH)
    assert not session.token_refused()
    assert session.identity is ANN
    assert session.receive(requests.Heartbeat("lobby")) is not None


@pytest.mark.parametrize("answered", [True, False])
def test_a_joined_room_that_a_fresh_token_does_not_allow_is_reported(answered):
    session = joined() if answered else authenticated()
    if not answered:
        session.receive(requests.JoinRoom("lobby"))
    session.receive(AUTH)
    session.token_accepted(Identity("ann", ("game-*",)))
    assert session.forbidden_room() == "lobby"


# Identities.


@pytest.mark.parametrize(
    ("identity", "words"),
    [
        (Identity(""), "sub is empty"),
        (Identity(None), "sub must be text"),  # type: ignore[arg-type]
        (Identity(True), "sub must be text"),  # type: ignore[arg-type]
        (Identity("a\nb"), "control character"),
        (Identity("\ud800"), "surrogate"),
        (Identity("x" * 257), "longer than 256 bytes"),
        (Identity("a", "lobby"), "must be a list"),  # type: ignore[arg-type]
        (Identity("a", (1,)), "must be a list"),  # type: ignore[arg-type]
        (Identity("a", {"lobby": 1}), "must be a list"),  # type: ignore[arg-type]
        (Identity("a", ("x",) * 1001), "at most 1000"),
        (Identity("a", name=""), "name is empty"),
        (Identity("a", name=7), "name must be text"),  # type: ignore[arg-type]
        (Identity("a", data="x" * 5000), "data takes 5002 bytes"),
        (Identity("a", data={"a": object()}), "data must be JSON"),
        (Identity("a", expires_at="soon"), "a time in seconds"),  # type: ignore[arg-type]
        (Identity("a", expires_at=True), "a time in seconds"),
        (Identity("a", expires_at=float("nan")), "a time in seconds"),
        (Identity("a", expires_at=-1), "a time in seconds"),
    ],
)
def test_an_invalid_identity_is_refused(identity, words):
    with pytest.raises(Unauthorised, match=words):
        checked(identity, Limits(), ())


def test_an_identity_is_normalised():
    made = checked(Identity(42, ["a"], expires_at=float("inf")), Limits(), ("b",))  # type: ignore[arg-type]
    assert (made.user_id, made.rooms) == ("42", ("a",))
    assert made.expires_at == 253_402_300_799.0
    assert checked(Identity("a"), Limits(), ("b", "c*")).rooms == ("b", "c*")
    assert not checked(Identity("a"), Limits(), ()).allows("b")


@pytest.mark.parametrize(
    ("rooms", "room_id", "allowed"),
    [
        (("*",), "any\u2028thing", True),
        (("a*",), "a", True),
        (("a*",), "ba", False),
        (("a?",), "ab", True),
        (("a?",), "abc", False),
        (("[ab]c",), "ac", True),
        (("[ab]c",), "[ab]c", True),
        (("[!a]",), "a", False),
        (("A",), "a", False),
        (("a.c",), "abc", False),
        ((), "a", False),
        (None, "a", False),
    ],
)
def test_room_patterns(rooms, room_id, allowed):
    assert Identity("ann", rooms).allows(room_id) is allowed


def test_a_hostile_pattern_matches_in_linear_time():
    assert not Identity("ann", ("*a" * 500 + "b",)).allows("a" * 256)


# All of it, in any order.

rooms = st.sampled_from(["lobby", "game-1", "other", "secret"])
users = st.sampled_from(["ann", "bob", 42])
identities = st.builds(
    Identity,
    st.sampled_from(["ann", "bob"]),
    st.sampled_from([("lobby",), ("game-*", "lobby"), ("*",), ()]),
    st.sampled_from([None, "Ann"]),
)
asked = st.one_of(
    st.builds(requests.JoinRoom, rooms, users, st.sampled_from([None, "Ann", "Bob"])),
    st.builds(requests.JoinRoom, rooms),
    st.builds(requests.Update, rooms, st.sampled_from([None, "Ann", "Bob"])),
    st.builds(requests.IsPresent, rooms, users),
    *(
        st.builds(kind, rooms)
        for kind in (requests.Heartbeat, requests.Away, requests.Members, requests.Count, requests.LeaveRoom)
    ),
)


class AuthenticationMachine(RuleBasedStateMachine):
    """Whatever comes in whatever order: no intent but what the identity of that moment allows."""

    def __init__(self) -> None:
        super().__init__()
        self.session = AuthSession(Limits(max_pending=3))
        self.user: str | None = None
        self.refusal: str | None = None
        self.early: list[requests.Request] = []

    def _take(self, request: requests.Request) -> None:
        try:
            intent = self.session.receive(request)
        except ProtocolError as error:
            self.refusal = error.code
            return
        if intent is None and self.session.checks_first_token:
            self.early.append(request)
        if intent is None or isinstance(intent, intents.Authenticate):
            return
        identity = self.session.identity
        assert identity is not None
        assert identity.user_id == self.user
        if isinstance(intent, intents.Join):
            assert intent.user_id == self.user
            assert identity.name in (None, intent.username)
        if isinstance(intent, intents.Join | intents.ListMembers | intents.CountMembers | intents.AskPresent):
            assert identity.allows(intent.room_id)
        if isinstance(intent, intents.Join):
            self.session.joined(intent.room_id)
        if isinstance(intent, intents.Leave):
            self.session.left(intent.membership.room_id)

    @rule(request=asked)
    def ask(self, request):
        self._take(request)

    @rule()
    def first_message(self):
        self._take(AUTH)

    @precondition(lambda self: AuthEvent.ACCEPTED in AUTH_TRANSITIONS[self.session.auth_state])
    @rule(identity=identities)
    def accept(self, identity):
        try:
            self.session.token_accepted(identity)
        except ProtocolError:
            assert self.user not in (None, identity.user_id)
            return
        if self.session.auth_state is AuthState.AUTHENTICATED:
            self.user = identity.user_id
        early, self.early = self.early, []
        for request in early:
            self._take(request)

    @precondition(lambda self: AuthEvent.REFUSED in AUTH_TRANSITIONS[self.session.auth_state])
    @rule()
    def deny(self):
        assert self.session.token_refused() is (self.session.auth_state is AuthState.REJECTED)

    @rule()
    def close(self):
        self.session.close()

    @invariant()
    def an_unauthenticated_client_gets_an_error(self):
        assert self.user is not None or self.refusal in (None, "unauthorized", "too_many_pending")

    @invariant()
    def no_room_is_joined_unauthenticated(self):
        if self.user is None:
            assert self.session.rooms == {}
        assert all(place.user_id == self.user for place in self.session.rooms.values())

    @invariant()
    def a_user_never_changes(self):
        identity = self.session.identity
        assert identity is None or identity.user_id == self.user


TestAuthenticationMachine = AuthenticationMachine.TestCase
