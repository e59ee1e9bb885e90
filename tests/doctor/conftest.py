"""Sets of servers as the tests of fleets have them, and a folder for embedded servers."""

from tests.edge.conftest import own_runtime_folder
from tests.fleet.conftest import cluster, running_fleets, sentinels

__all__ = ["cluster", "own_runtime_folder", "running_fleets", "sentinels"]
