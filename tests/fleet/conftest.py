"""Sets of servers, made once a run and as new for each test; a node's own mistakes fail the test, too."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from structlog.testing import capture_logs

from tests.support import servers
from tests.support.server_sets import ClusterSet, SentinelSet, ServerSet

Fleets = Callable[[type[ServerSet], str], ServerSet]
Request = pytest.FixtureRequest


def _once_quick(*shapes: type[ServerSet]) -> list[Any]:
    """Each shape of each kind of server; the quick part of the tests runs on the bundled one alone."""
    return [
        pytest.param(
            (shape, kind),
            id=f"{shape.__name__}-{kind}",
            marks=() if kind == "valkey" else pytest.mark.slow,
        )
        for shape in shapes
        for kind in servers.KINDS
    ]


@pytest.fixture(scope="session")
def running_fleets() -> Iterator[Fleets]:
    """The sets of this run, each started when it is first asked for."""
    started: dict[tuple[type[ServerSet], str], ServerSet] = {}

    def get(shape: type[ServerSet], kind: str) -> ServerSet:
        if (shape, kind) not in started:
            binary, missing = servers.find(kind)
            if binary is None:
                pytest.skip(missing)
            started[shape, kind] = shape(kind, binary)
            started[shape, kind].start()
        return started[shape, kind].reset()

    yield get
    for fleet in started.values():
        fleet.stop()


@pytest.fixture(params=_once_quick(SentinelSet))
def sentinels(request: Request, running_fleets: Fleets) -> ServerSet:
    return running_fleets(*request.param)


@pytest.fixture(params=_once_quick(ClusterSet))
def cluster(request: Request, running_fleets: Fleets) -> ServerSet:
    return running_fleets(*request.param)


@pytest.fixture(params=_once_quick(SentinelSet, ClusterSet))
def fleet(request: Request, running_fleets: Fleets) -> ServerSet:
    return running_fleets(*request.param)


@pytest.fixture(autouse=True)
def mistakes() -> Iterator[None]:
    with capture_logs() as logs:
        yield
    for line in logs:
        print(line)  # noqa: T201 - shown with a test that failed
    assert not [line for line in logs if line["log_level"] in {"error", "critical"}]
