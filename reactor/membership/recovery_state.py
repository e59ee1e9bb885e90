"""A node's recovery after Redis was away or lost data: the state machine, as a table. PURE.

Redis may come back whole, empty, or older than it was. A node cannot rely on what such a server holds until
it has compared that with its own connections, and until every other node has done the same: before that, a
member that is missing may only be one whose node has not registered it again yet. So the room feed is paused
by every sign of a loss, and resumed in HEALTHY alone.

    HEALTHY        Redis takes commands and its diffs arrive.
    DEGRADED       Redis takes no commands. Clients were sent `service:degraded`.
    UNSUBSCRIBED   Redis takes commands, but its diffs do not arrive.
    REREGISTERING  The node finds out whether the server is another one or has lost data. If so, it registers
                   all its connections again.
    BARRIER        It has done so, and waits until the other nodes have.

Five events come from outside, at any time:

    REDIS_LOST         A command got no answer, or was refused as during an outage.
    REDIS_RESTORED     Commands are answered again.
    SUBSCRIPTION_LOST  Diffs do not arrive any more.
    CHECK_REQUIRED     The server has to be compared: the subscription was renewed, commands and diffs are
                       both back, a room lacks members that are connected here, or this node was judged lost.

Two come from the recovery itself, when a step is done:

    REREGISTERED       All checks that were required are done.
    BARRIER_PASSED     No other node has to be waited for.

In DEGRADED and UNSUBSCRIBED a step that has begun may still end. Its result holds, and does not change the
state: the end of the outage requires another check, which does.

Everything that changes the state is in `TRANSITIONS`, and `RecoveryMachine.advance` is the only one to read
it. An event that the table does not have raises `IllegalEvent` and changes nothing.
"""

from reactor.protocol.state_table import IllegalEvent, TableKey


class RecoveryState(TableKey):
    """Whether what Redis holds can be relied on."""

    HEALTHY = "healthy"
    DEGRADED = "degraded"
    UNSUBSCRIBED = "unsubscribed"
    REREGISTERING = "reregistering"
    BARRIER = "barrier"


class RecoveryEvent(TableKey):
    """What can happen to it."""

    REDIS_LOST = "redis_lost"
    REDIS_RESTORED = "redis_restored"
    SUBSCRIPTION_LOST = "subscription_lost"
    CHECK_REQUIRED = "check_required"
    REREGISTERED = "reregistered"
    BARRIER_PASSED = "barrier_passed"


_State, _Event = RecoveryState, RecoveryEvent

TRANSITIONS: dict[RecoveryState, dict[RecoveryEvent, RecoveryState]] = {
    _State.HEALTHY: {
        _Event.REDIS_LOST: _State.DEGRADED,
        _Event.REDIS_RESTORED: _State.HEALTHY,
        _Event.SUBSCRIPTION_LOST: _State.UNSUBSCRIBED,
        _Event.CHECK_REQUIRED: _State.REREGISTERING,
    },
    _State.DEGRADED: {
        _Event.REDIS_LOST: _State.DEGRADED,
        _Event.REDIS_RESTORED: _State.UNSUBSCRIBED,
        _Event.SUBSCRIPTION_LOST: _State.DEGRADED,
        _Event.CHECK_REQUIRED: _State.DEGRADED,
        _Event.REREGISTERED: _State.DEGRADED,
        _Event.BARRIER_PASSED: _State.DEGRADED,
    },
    _State.UNSUBSCRIBED: {
        _Event.REDIS_LOST: _State.DEGRADED,
        _Event.REDIS_RESTORED: _State.UNSUBSCRIBED,
        _Event.SUBSCRIPTION_LOST: _State.UNSUBSCRIBED,
        _Event.CHECK_REQUIRED: _State.REREGISTERING,
        _Event.REREGISTERED: _State.UNSUBSCRIBED,
        _Event.BARRIER_PASSED: _State.UNSUBSCRIBED,
    },
    _State.REREGISTERING: {
        _Event.REDIS_LOST: _State.DEGRADED,
        _Event.REDIS_RESTORED: _State.REREGISTERING,
        _Event.SUBSCRIPTION_LOST: _State.UNSUBSCRIBED,
        _Event.CHECK_REQUIRED: _State.REREGISTERING,
        _Event.REREGISTERED: _State.BARRIER,
    },
    _State.BARRIER: {
        _Event.REDIS_LOST: _State.DEGRADED,
        _Event.REDIS_RESTORED: _State.BARRIER,
        _Event.SUBSCRIPTION_LOST: _State.UNSUBSCRIBED,
        _Event.CHECK_REQUIRED: _State.REREGISTERING,
        _Event.BARRIER_PASSED: _State.HEALTHY,
    },
}


class RecoveryMachine:
    """The state, and the only way to change it."""

    __slots__ = ("_state",)

    def __init__(self) -> None:
        self._state = RecoveryState.HEALTHY

    @property
    def state(self) -> RecoveryState:
        """The present state."""
        return self._state

    def advance(self, event: RecoveryEvent) -> RecoveryState:
        """Change the state as the table says, and return the new one.

        Raises:
            IllegalEvent: The table does not have this event in this state; nothing has changed.

        """
        after = TRANSITIONS[self._state].get(event)
        if after is None:
            raise IllegalEvent(f"{event.name} while {self._state.name}")
        self._state = after
        return after
