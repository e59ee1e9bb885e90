"""Whether a server counts as one that evicts keys: while it may, and for some minutes after it last did."""

from tests.redis.presence.cases import probing
from tests.redis.presence.probe import Probe
from tests.support.servers import Server

MINUTE = 60_000


def evict_some(probe: Probe) -> None:
    """Make the server evict keys of another program, and none of ours; afterwards it evicts no more."""
    client = probe.client
    client.config_set("maxmemory-policy", "allkeys-random")
    client.set("foreign", "x" * 100_000)
    client.config_set("maxmemory", int(client.info("memory")["used_memory"]) + 2_000_000)
    number = 0
    before = client.info("stats")["evicted_keys"]
    while client.info("stats")["evicted_keys"] == before:
        client.set(f"foreign-{number}", "x" * 100_000)
        number += 1
    client.config_set("maxmemory", "0")
    client.config_set("maxmemory-policy", "noeviction")
    client.delete(*client.keys("foreign*"))


def is_careful(probe: Probe) -> bool:
    """Whether a deleted presence key counts as evicted: then asking for the member does not remove it."""
    probe.join("ann")
    probe.client.delete(probe.presence_key("ann"))
    probe.ask("is_present", "ann")
    careful = bool(probe.client.exists(probe.members_key()))
    probe.client.delete(probe.members_key(), probe.shadow_key("ann"))
    return careful


def noted(probe: Probe, minutes: int) -> Probe:
    """As if the number of evicted keys had last changed `minutes` minutes ago."""
    # A node sets this mark every second.
    probe.on_shard("mark_shard_alive", "lobby", 86_400_000, "", "1")
    probe.client.hset(probe.key("pulse"), mapping={"evicted_at": probe.now() - minutes * MINUTE, "hold": 0})
    return probe


def test_a_server_that_has_evicted_keys_is_treated_with_care_for_minutes_only(redis_server: Server) -> None:
    with probing(redis_server) as probe:
        assert not is_careful(probe)
        evict_some(probe)
        assert is_careful(probe), "no mark has noted it yet"
        assert is_careful(noted(probe, 4))
        assert not is_careful(noted(probe, 6)), "without CONFIG RESETSTAT"
        evict_some(probe)
        assert is_careful(probe), "it has evicted again"
        assert not is_careful(noted(probe, 6))
