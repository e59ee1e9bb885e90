"""Every test of this folder also fails when a node of this process logs an error."""

from collections.abc import Iterator

import pytest
from structlog.testing import capture_logs


@pytest.fixture(autouse=True)
def mistakes() -> Iterator[None]:
    with capture_logs() as logs:
        yield
    for line in logs:
        print(line)  # noqa: T201 - shown with a test that failed
    assert not [line for line in logs if line["log_level"] in {"error", "critical"}]
