"""The table of a connection's membership in Redis: every state and every event, and the facts beside it."""

import itertools

import pytest

from reactor.presence.attachment import LIVE_STATES, TRANSITIONS, Attachment
from reactor.presence.attachment import AttachmentEvent as Event
from reactor.presence.attachment import AttachmentState as State
from reactor.presence.keys import Entry
from reactor.protocol.messages import Member
from reactor.protocol.state_table import IllegalEvent
from reactor.settings import RoomPolicy
from tests.support.state_tables import read_table, shortest_paths

# Written out once more, so that a slip in the table shows: what each event leads to, "." where it is illegal.
EXPECTED = """
                       NEW      JOINING    LIVE           REREGISTERING  DEPARTED   LEAVING        DETACHING  ENDED
SUBMITTED              JOINING  JOINING    LIVE           REREGISTERING  DEPARTED   LEAVING        DETACHING  ENDED
JOINED                 .        LIVE       LIVE           REREGISTERING  LIVE       .              .          .
REFUSED                ENDED    ENDED      LIVE           REREGISTERING  DEPARTED   .              DETACHING  ENDED
CONTINUED              LIVE     .          .              .              .          .              .          .
MISSING                .        .          REREGISTERING  .              .          .              .          .
REREGISTERED           .        .          LIVE           LIVE           .          .              .          .
REREGISTRATION_FAILED  .        .          LIVE           LIVE           .          .              .          .
FOUND_DEPARTED         .        .          DEPARTED       DEPARTED       DEPARTED   .              .          .
EXPELLED               .        .          ENDED          ENDED          ENDED      .              .          .
LEAVE_SUBMITTED        .        .          LEAVING        LEAVING        LEAVING    .              .          .
LEFT                   .        .          .              .              .          ENDED          .          .
LEAVE_UNANSWERED       .        .          .              .              .          REREGISTERING  .          .
SOCKET_CLOSED          .        .          DETACHING      DETACHING      DETACHING  DETACHING      .          .
DETACH_QUEUED          .        DETACHING  .              .              DEPARTED   LEAVING        DETACHING  DETACHING
DETACHED               .        .          .              .              .          .              ENDED      .
"""  # noqa: E501 - a table

POLICY = RoomPolicy(ttl=1000, grace=100, away_grace=200, close_grace=50, message="", max_members=0)


def attachment_in(state: State) -> Attachment:
    """An attachment in that state, brought there by the shortest sequence of legal events."""
    attachment = Attachment(Entry("lobby", "ann"), "n1.1", POLICY, 7, "lobby:user:ann")
    for event in shortest_paths(TRANSITIONS, State.NEW)[state]:
        attachment.advance(event)
    assert attachment.state is state
    return attachment


def state_of(attachment: Attachment) -> State:
    return attachment.state


def fields(attachment: Attachment) -> dict[str, object]:
    return {name: getattr(attachment, name) for name in Attachment.__slots__}


def test_the_table_is_whole():
    assert read_table(EXPECTED, State, Event).keys() == set(itertools.product(State, Event))
    assert set(TRANSITIONS) == set(State)


@pytest.mark.parametrize(
    ("state", "event"), list(itertools.product(State, Event)), ids=lambda value: value.name
)
def test_every_event_in_every_state(state: State, event: Event):
    attachment = attachment_in(state)
    before, after = fields(attachment), read_table(EXPECTED, State, Event)[state, event]
    if after is None:
        with pytest.raises(IllegalEvent, match=f"{event.name} while {state.name}: .*lobby"):
            attachment.advance(event)
        assert fields(attachment) == before
    else:
        assert attachment.advance(event) is after
        assert fields(attachment) == before | {"state": after, "live": after in LIVE_STATES}


@pytest.mark.parametrize("state", State, ids=lambda value: value.name)
def test_every_state_can_be_reached_and_can_end(state: State):
    reached = {attachment_in(state).state}
    while more := {after for at in reached for after in TRANSITIONS[at].values()} - reached:
        reached |= more
    assert State.ENDED in reached


def test_a_request_without_an_answer_may_be_taken_late_once_the_membership_ended():
    attachment = attachment_in(State.LIVE)
    attachment.submitted("n2.1")
    assert (attachment.connection, attachment.unanswered) == ("n2.1", 1)
    answers = [attachment.may_be_taken_late]
    attachment.advance(Event.EXPELLED)
    answers.append(attachment.may_be_taken_late)
    attachment.answered(None)
    answers.append(attachment.may_be_taken_late)
    assert answers == [False, True, False]


def test_an_answer_with_a_membership_replaces_what_was_last_seen_of_it():
    attachment = attachment_in(State.LIVE)
    attachment.note_last_seen(Member("ann", "Ann", 5, 6))
    attachment.submitted("n1.1")
    attachment.answered(None)
    assert fields(attachment)["last_seen"] is not None
    attachment.submitted("n1.1")
    attachment.answered(7)
    assert fields(attachment)["last_seen"] is None
    assert attachment.joined_at == 7


def test_a_detaching_attachment_ends_with_the_last_detach_that_was_queued():
    attachment = attachment_in(State.LIVE)
    attachment.advance(Event.SOCKET_CLOSED)
    attachment.detach_queued()
    attachment.detach_queued()
    attachment.detach_taken()
    assert state_of(attachment) is State.DETACHING
    attachment.detach_taken()
    assert state_of(attachment) is State.ENDED
    assert attachment.detach_requested


def test_a_leave_that_fails_after_a_detach_was_queued_keeps_the_client_in_the_room():
    attachment = attachment_in(State.LEAVING)
    attachment.detach_queued()
    assert attachment.in_room
    assert not attachment.live
    attachment.advance(Event.LEAVE_UNANSWERED)
    attachment.detach_taken()
    assert attachment.state is State.REREGISTERING
    assert attachment.detach_requested


def test_a_detach_that_is_not_legal_is_not_counted():
    attachment = attachment_in(State.LIVE)
    with pytest.raises(IllegalEvent):
        attachment.detach_queued()
    assert not attachment.detach_requested


def test_a_new_attachment_continues_the_connection_of_one_that_ended():
    ended = attachment_in(State.LIVE)
    ended.submitted("n2.7")
    ended.answered(9)
    ended.advance(Event.EXPELLED)
    attachment = Attachment(ended.entry, "n2.8", POLICY, 7, ended.suffix)
    attachment.continue_from(ended)
    assert (attachment.state, attachment.connection, attachment.joined_at) == (State.LIVE, "n2.7", 9)
    assert not ended.live
