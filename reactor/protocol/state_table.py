"""What the state machines of this package are written with: tables of states and events. PURE."""

from enum import Enum


class TableKey(Enum):
    """A state, or an event, of a state machine.

    Members are the same exactly if they are the same object. Enum's own hash is that of the name, and takes a
    call of Python: a join looks twenty of them up.
    """

    __hash__ = object.__hash__


class IllegalEvent(RuntimeError):
    """An event that the table does not have: a bug in this program, not a client's mistake."""
