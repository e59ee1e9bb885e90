"""The Autobahn cases against an echo server made of Connection; only 7.1.5 is known to differ."""

import sys
from typing import Any

import pytest

from reactor.gateway.connection import Connection
from reactor.gateway.server import Gateway
from reactor.protocol.codec import JSON, MSGPACK
from tests.support.gateway import serving

kosoku = pytest.importorskip("kosoku", reason="kosoku has no build for this platform")
pytestmark = [
    pytest.mark.slow,
    # The original case files do not close their test data.
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture(autouse=True)
def clean_imports(monkeypatch):
    """Remove the pkg_resources that kosoku installs: it lacks attributes that pytest needs."""
    monkeypatch.setattr(sys, "path", sys.path[:])
    yield
    sys.modules.pop("pkg_resources", None)


class Echo(Connection):
    __slots__ = ()
    max_fragments = 1 << 20  # the cases split a message into single bytes

    def message_received(self, payload: bytes, *, binary: bool) -> None:
        self.codec = MSGPACK if binary else JSON
        self.send_payload(payload)
        self.codec = JSON


class EchoGateway(Gateway):
    connection_class = Echo


async def run_cases(url: str, cases: list[str] | None, excluded: list[str]) -> dict[str, str]:
    """Return the behavior of each case; a failed case raises kosoku's FailureError, which names it."""
    results = await kosoku.run_fuzzingclient(url, cases=cases, exclude_cases=excluded)
    return {result.case_id: str(result.behavior) for result in results}


def echoing(**settings: Any) -> Any:
    return serving(gateway=EchoGateway, max_message="16MiB", send_buffer="64MiB", **settings)


async def test_framing_conforms_to_the_rfc():
    async with echoing() as served:
        behaviors = await run_cases(served.url, None, ["12.*", "13.*", "7.1.5"])
    assert len(behaviors) > 290
    # A frame received in pieces is validated when it is complete.
    assert {case for case, behavior in behaviors.items() if "STRICT" in behavior} <= {"6.4.3", "6.4.4"}


async def test_a_close_within_a_fragmented_message_is_answered_with_a_protocol_error():
    async with echoing() as served:
        with pytest.raises(kosoku.FailureError) as failure:
            await run_cases(served.url, ["7.1.5"], [])
    (result,) = failure.value.results
    assert result.remote_close_code == 1002


async def test_compression_conforms_to_the_rfc():
    cases = [f"12.{group}.{case}" for group in range(1, 6) for case in (1, 6)]
    cases += [f"13.{group}.{case}" for group in range(1, 8) for case in (1, 5)]
    async with echoing(compression=True) as served:
        behaviors = await run_cases(served.url, cases, [])
    assert len(behaviors) == len(cases)
