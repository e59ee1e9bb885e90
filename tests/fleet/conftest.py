"""Server sets, started once a run and reset for each test. An error in the log of a node fails the test."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from structlog.testing import capture_logs

from tests.support import servers
from tests.support.cluster_set import ClusterSet, DatabasesClusterSet, TlsClusterSet
from tests.support.sentinel_set import SentinelSet
from tests.support.server_sets import RunningSets, ServerSet

ServerSets = Callable[[type[ServerSet], str], ServerSet]
Request = pytest.FixtureRequest


def _params(*shapes: type[ServerSet]) -> list[Any]:
    """Every kind of set with every kind of server; of two kinds the second is left to the slow tests."""
    return [
        pytest.param(
            (shape, kind),
            id=f"{shape.__name__}-{kind}",
            marks=() if kind == servers.KINDS[0] else pytest.mark.slow,
        )
        for shape in shapes
        for kind in servers.KINDS
    ]


@pytest.fixture(scope="session")
def running_sets() -> Iterator[ServerSets]:
    """Returns a set of the given type and kind, reset; each is started once a run."""
    with RunningSets.opened() as sets:

        def get(set_type: type[ServerSet], kind: str) -> ServerSet:
            try:
                return sets.get(set_type, kind).reset()
            except LookupError as missing:
                pytest.skip(str(missing))

        yield get


@pytest.fixture(params=_params(SentinelSet))
def sentinels(request: Request, running_sets: ServerSets) -> ServerSet:
    return running_sets(*request.param)


@pytest.fixture(params=_params(ClusterSet))
def cluster(request: Request, running_sets: ServerSets) -> ServerSet:
    return running_sets(*request.param)


@pytest.fixture(params=_params(TlsClusterSet))
def tls_cluster(request: Request, running_sets: ServerSets) -> ServerSet:
    return running_sets(*request.param)


@pytest.fixture(params=_params(DatabasesClusterSet))
def databases_cluster(request: Request, running_sets: ServerSets) -> ServerSet:
    return running_sets(*request.param)


@pytest.fixture(params=_params(SentinelSet, ClusterSet))
def fleet(request: Request, running_sets: ServerSets) -> ServerSet:
    return running_sets(*request.param)


@pytest.fixture(autouse=True)
def errors_logged() -> Iterator[None]:
    with capture_logs() as logs:
        yield
    for line in logs:
        print(line)  # noqa: T201 - shown with a test that failed
    assert not [line for line in logs if line["log_level"] in {"error", "critical"}]
