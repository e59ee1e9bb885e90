"""Fixtures of tests/fleet: a Sentinel set and a cluster."""

from tests.fleet.conftest import cluster, running_sets, sentinels

__all__ = ["cluster", "running_sets", "sentinels"]
