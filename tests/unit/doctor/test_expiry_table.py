"""The row of the measured table in which a server stands."""

from typing import Any

import pytest
from redis.asyncio import Redis

from reactor.backend.target import parse_url
from reactor.doctor.checks.expiry_table import expiry_table, nearest_row
from reactor.doctor.deployment import Deployment, InspectedServer
from reactor.settings import Settings


def server(keys: int = 0, **info: Any) -> InspectedServer:
    info = {"redis_version": "7.4.2", "hz": 10, "db0": {"keys": 2 * keys, "expires": keys}, **info}
    return InspectedServer("h:6379", ("h", 6379), Redis(), info=info, config={"active-expire-effort": "1"})


@pytest.mark.parametrize(
    ("info", "name"),
    [
        ({"redis_version": "7.0.15"}, "Redis 7.0"),
        ({"redis_version": "7.2.4", "valkey_version": "8.1.1"}, "Valkey 8.1"),
        ({"redis_version": "7.2.4", "valkey_version": "12.0.0"}, "Valkey 9.1"),
        ({"redis_version": "8.0.2"}, "Redis 8.0"),
    ],
)
def test_the_row_is_that_of_the_nearest_release_of_the_same_server(info: dict[str, Any], name: str) -> None:
    row = nearest_row(server(**info))
    assert row is not None
    assert row.server == name


def test_the_row_is_that_of_the_nearest_number_of_keys_with_a_ttl() -> None:
    few, many = nearest_row(server(0)), nearest_row(server(50_000_000))
    assert few is not None
    assert many is not None
    assert few.keys == 1000
    assert many.keys >= 100_000


def test_the_finding_names_the_server_and_the_row() -> None:
    deployment = Deployment(parse_url("redis://h"), Settings(), servers=[server(900)])
    (finding,) = expiry_table(deployment)
    assert finding.severity == "ok"
    assert "Redis 7.4.2, hz 10, effort 1, 900 keys with a TTL: as measured on Redis 7.4" in finding.found


def test_without_a_pacemaker_it_is_worth_a_note() -> None:
    deployment = Deployment(parse_url("redis://h"), Settings(pacemaker=False), servers=[server(900)])
    (finding,) = expiry_table(deployment)
    assert (finding.severity, finding.fix) == ("note", "set pacemaker on")


def test_a_server_that_shows_no_info_has_no_row() -> None:
    hidden = InspectedServer("h:6379", ("h", 6379), Redis())
    assert nearest_row(hidden) is None
