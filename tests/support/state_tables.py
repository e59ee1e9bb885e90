"""What the tests of every state table need: the expected table as text, and a way into each state."""

from collections.abc import Mapping
from enum import Enum
from typing import TypeVar

S = TypeVar("S", bound=Enum)
E = TypeVar("E", bound=Enum)


def read_table(text: str, states: type[S], events: type[E]) -> dict[tuple[S, E], S | None]:
    """The table that a text shows: states at the top, a line for each event, "." for an illegal event."""
    head, *lines = [line.split() for line in text.strip().splitlines()]
    return {
        (states[state], events[event]): None if after == "." else states[after]
        for event, *afters in lines
        for state, after in zip(head, afters, strict=True)
    }


def shortest_paths(transitions: Mapping[S, Mapping[E, S]], start: S) -> dict[S, list[E]]:
    """The shortest sequence of legal events from `start` into each state that can be reached."""
    paths: dict[S, list[E]] = {start: []}
    queue = [start]
    for at in queue:
        for event, after in transitions[at].items():
            if after not in paths:
                paths[after] = [*paths[at], event]
                queue.append(after)
    return paths
