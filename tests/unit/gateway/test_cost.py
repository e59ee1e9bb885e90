import json
from dataclasses import dataclass, field
from typing import get_args

from reactor.gateway.addresses import AddressUsage
from reactor.gateway.cost import (
    GUARANTEED,
    LARGE_MESSAGE,
    PER_ADDRESS,
    PRICES,
    CostLimiter,
    Spending,
    change_price,
)
from reactor.protocol.intents import Intent
from reactor.settings import Settings


@dataclass
class Session:
    proved_user: str | None = None


@dataclass
class Client:
    address: AddressUsage | None = None
    session: Session = field(default_factory=Session)
    spending: Spending | None = None


def test_every_request_has_a_price():
    assert set(PRICES) == set(get_args(Intent))


def test_a_change_costs_more_the_larger_it_is_and_the_more_sockets_receive_it():
    assert change_price(100, 1) < change_price(4000, 1) < change_price(4000, 700) / 600


def test_a_connection_may_spend_the_burst_at_once_and_then_its_rate():
    costs, client = CostLimiter(100, 1000), Client()
    assert costs.wait(client, 0.0) == 0
    costs.charge(client, 1000, 0.0)
    assert costs.wait(client, 0.0) == 0
    costs.charge(client, 100, 0.0)
    assert costs.wait(client, 0.0) == 1.0
    assert costs.refused == {"connection": 1}
    assert costs.wait(client, 1.0) == 0
    for second in range(1, 100):
        costs.charge(client, 100, float(second))
        assert costs.wait(client, second + 1.0) == 0


def test_a_debt_is_bounded():
    costs, client = CostLimiter(100, 1000), Client()
    costs.charge(client, 1e9, 0.0)
    assert 0 < costs.wait(client, 0.0) <= 10
    assert costs.wait(client, 10.0) == 0


def test_an_overdrawn_address_leaves_each_of_its_connections_a_share():
    costs, address = CostLimiter(100, 1000), AddressUsage("192.0.2.1")
    attackers = [Client(address) for _ in range(20)]
    ordinary = Client(address)
    for second in range(200):
        for attacker in attackers:
            if not costs.wait(attacker, float(second)):
                costs.charge(attacker, 90, float(second))
        assert costs.wait(ordinary, float(second)) == 0
        costs.charge(ordinary, 100 * GUARANTEED, float(second))
    assert costs.refused["address"] > 1000
    assert set(costs.refused) == {"address"}


def test_the_connections_of_an_address_spend_its_share_together():
    costs, address = CostLimiter(100, 1000), AddressUsage("192.0.2.1")
    clients, spent = [Client(address) for _ in range(50)], 0
    for second in range(100):
        for client in clients:
            if not costs.wait(client, float(second)):
                costs.charge(client, 50, float(second))
                spent += 50
    guaranteed = len(clients) * GUARANTEED * (1000 + 100 * 100)
    assert spent <= PER_ADDRESS * (1000 + 100 * 100) + guaranteed + 50 * len(clients)
    assert address.in_use(100.0)


def test_what_is_done_for_a_connection_after_it_has_closed_is_charged_to_its_address():
    costs, address = CostLimiter(100, 1000), AddressUsage("192.0.2.1")
    for _ in range(20):
        client = Client(address)
        costs.charge(client, 6, 0.0)  # for a join
        client.address = None  # closed
        costs.charge(client, 500, 0.0)  # for the list of its room
    late = Client(address)
    costs.charge(late, 500, 0.0)
    assert costs.wait(late, 0.0) > 0
    assert set(costs.refused) == {"address"}


def test_the_connections_of_a_proved_user_spend_together_whatever_their_address():
    costs = CostLimiter(100, 1000)
    clients = [Client(AddressUsage(str(number)), Session("ann")) for number in range(4)]
    other = Client(AddressUsage("x"), Session("bob"))
    for client in clients:
        costs.charge(client, 900, 0.0)
    costs.charge(other, 900, 0.0)
    assert all(costs.wait(client, 0.0) for client in clients)
    assert costs.wait(other, 0.0) == 0
    assert set(costs.refused) == {"user"}


def test_accounts_of_users_that_spend_no_more_are_forgotten():
    costs = CostLimiter(100, 1000)
    for number in range(100_000):
        client = Client(None, Session(f"user {number}"))
        costs.charge(client, 1, number / 10)
    assert len(costs._users) < 3000


def test_without_a_rate_nothing_is_charged():
    costs, client = CostLimiter(0, 1000), Client()
    costs.charge(client, 1e9, 0.0)
    assert client.spending is None
    assert costs.wait(client, 0.0) == 0


def test_the_connections_of_an_address_are_guaranteed_a_bounded_share_together():
    costs, address = CostLimiter(100, 100), AddressUsage("192.0.2.1")
    address.accepted = 1000
    attackers = [Client(address) for _ in range(1000)]
    spent = 0
    for second in range(100):
        for attacker in attackers:
            if not costs.wait(attacker, float(second)):
                costs.charge(attacker, 1, float(second))
                spent += 1
    of_address = 100 * PER_ADDRESS * 100
    assert of_address * 0.9 < spent < of_address * 1.5


def test_requests_that_are_never_refused_are_smaller_than_what_is_refused_before_it_is_decoded():
    room = "\U0001f600" * (Settings().max_id // 4)
    escaped = json.dumps({"type": "room:heartbeat", "roomId": room, "id": "\x1f" * 128})
    assert "\\ud83d" in escaped
    assert len(escaped) < LARGE_MESSAGE


def test_a_node_spends_less_at_once_than_its_connections_might_and_leaves_each_a_share():
    costs = CostLimiter(100, 1000)
    attackers = [Client() for _ in range(40)]
    for attacker in attackers:
        while not costs.wait(attacker, 0.0):
            costs.charge(attacker, 50, 0.0)
    assert costs.refused["node"] > 0
    ordinary = Client()
    costs.charge(ordinary, 1000 * GUARANTEED, 0.0)
    assert costs.wait(ordinary, 0.0) == 0
