"""Messages before the first token is accepted: a budget for each connection and for the node."""

import pytest

from reactor.gateway import early_messages
from reactor.gateway.early_messages import EarlyBudget, EarlyMessages
from reactor.protocol import byte_budget
from reactor.protocol.messages import ProtocolError


@pytest.fixture(autouse=True)
def small_budgets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(byte_budget, "FREE_BYTES", 10)
    monkeypatch.setattr(early_messages, "CONNECTION_BYTES", 50)
    monkeypatch.setattr(early_messages, "NODE_BYTES", 100)


def is_refused(messages: EarlyMessages, size: int) -> bool:
    try:
        messages.keep(b"x" * size)
    except ProtocolError as error:
        return error.code == "too_many_pending"
    return False


def test_messages_are_returned_in_their_order() -> None:
    messages = EarlyMessages(EarlyBudget(4, 10))
    for payload in (b"a", b"b", b"c"):
        messages.keep(payload)
    assert messages.take_all() == [b"a", b"b", b"c"]
    assert messages.take_all() == []


def test_a_connection_has_a_limit_in_number_and_in_bytes() -> None:
    budget = EarlyBudget(3, 10)
    messages = EarlyMessages(budget)
    assert [is_refused(messages, 1) for _ in range(4)] == [False, False, False, True]
    messages = EarlyMessages(budget)
    assert [is_refused(messages, 25) for _ in range(3)] == [False, False, True]
    assert not is_refused(EarlyMessages(EarlyBudget(3, 80)), 80)  # one message is always possible


def test_all_connections_share_a_budget_beyond_their_free_bytes() -> None:
    budget = EarlyBudget(100, 10)
    connections = [EarlyMessages(budget) for _ in range(4)]
    assert [is_refused(messages, 45) for messages in connections] == [False, False, True, True]
    assert budget.bytes.used == 70
    others = [EarlyMessages(budget) for _ in range(50)]
    assert not any(is_refused(messages, 5) for _ in range(2) for messages in others)
    assert budget.bytes.used == 70
    for messages in connections:
        messages.take_all()
    assert budget.bytes.used == 0
    assert not is_refused(connections[3], 45)
