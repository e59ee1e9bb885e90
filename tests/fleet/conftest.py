"""Sets of servers, made once a run and as new for each test; a node's own mistakes fail the test, too."""

from collections.abc import Callable, Iterator

import pytest
from structlog.testing import capture_logs

from tests import servers
from tests.fleets import ClusterSet, Fleet, SentinelSet

Fleets = Callable[[type[Fleet], str], Fleet]

_ALL = [(shape, kind) for shape in (SentinelSet, ClusterSet) for kind in servers.KINDS]


@pytest.fixture(scope="session")
def running_fleets() -> Iterator[Fleets]:
    """The sets of this run, each started when it is first asked for."""
    started: dict[tuple[type[Fleet], str], Fleet] = {}

    def get(shape: type[Fleet], kind: str) -> Fleet:
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


@pytest.fixture(params=servers.KINDS)
def sentinels(request: pytest.FixtureRequest, running_fleets: Fleets) -> Fleet:
    return running_fleets(SentinelSet, request.param)


@pytest.fixture(params=servers.KINDS)
def cluster(request: pytest.FixtureRequest, running_fleets: Fleets) -> Fleet:
    return running_fleets(ClusterSet, request.param)


def _name(param: tuple[type[Fleet], str]) -> str:
    return f"{param[0].__name__}-{param[1]}"


@pytest.fixture(params=_ALL, ids=_name)
def every_fleet(request: pytest.FixtureRequest, running_fleets: Fleets) -> Fleet:
    """Each kind of set of each kind of server."""
    return running_fleets(*request.param)


@pytest.fixture(
    params=[pytest.param(one, marks=[pytest.mark.slow] * (one[1] != "valkey")) for one in _ALL], ids=_name
)
def fleet(request: pytest.FixtureRequest, running_fleets: Fleets) -> Fleet:
    """Each kind of set; in the quick part of the tests of the bundled server alone."""
    return running_fleets(*request.param)


@pytest.fixture(autouse=True)
def mistakes() -> Iterator[None]:
    with capture_logs() as logs:
        yield
    for line in logs:
        print(line)  # noqa: T201 - shown with a test that failed
    assert not [line for line in logs if line["log_level"] in {"error", "critical"}]
