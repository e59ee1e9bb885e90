"""Sets of servers as the tests of fleets have them."""

from tests.fleet.conftest import cluster, running_sets, sentinels

__all__ = ["cluster", "running_sets", "sentinels"]
