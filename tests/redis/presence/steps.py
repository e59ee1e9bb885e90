"""Steps before a case's call."""

from collections.abc import Callable
from typing import Any

from reactor.presence.keys import escape
from tests.redis.presence.probe import AWAY_GRACE, GRACE, Probe

Step = Callable[[Probe], Any]


def joins(user: str, connection: str = "n1.1", **options: Any) -> Step:
    return lambda probe: probe.join(user, connection, **options)


def returns(
    user: str = "ann", connection: str = "n1.1", *, keep: str = "ud", epoch: str = "", version: int = 1,
    joined_at: int | None = None, **options: Any,
) -> Step:  # fmt: skip
    """A client joins again by itself: of the membership on record, in the present epoch, unless given."""

    def come_back(probe: Probe) -> Any:
        joined = probe.joined_at(user) if joined_at is None else joined_at
        return probe.join(
            user, connection, resume=f"{keep} {version} {joined} {epoch or probe.epoch()}", **options
        )

    return come_back


def updates(username: str, data: str) -> Step:
    """Ann changes her name or data."""
    return lambda probe: probe.ask("update", "ann", username, data, "", 0)


def patches(patch: str, username: str = "", *, max_data: int = 4096) -> Step:
    """Ann changes fields of her data."""
    return lambda probe: probe.ask("update", "ann", username, "", patch, max_data)


def is_kicked(user: str, message: str = "") -> Step:
    return lambda probe: probe.ask("kick", user, message)


def is_removed(user: str, reason: str) -> Step:
    """Removed as if Redis had gone back to before that departure."""
    return lambda probe: probe.ask("repeat_departure", user, probe.shadow(user)["j"], reason, probe.now())


def loses_all(probe: Probe) -> None:
    """Redis loses all its data."""
    probe.client.flushall()


def detaches(user: str, connection: str = "n1.1") -> Step:
    return lambda probe: probe.detach(user, connection)


def gets_no_reply(user: str, connection: str = "n1.1") -> Step:
    """A join of the user got no reply, so the connection is detached and fenced."""
    return lambda probe: probe.ask("detach", user, connection, GRACE, AWAY_GRACE, 1)


def leaves(user: str, connection: str = "n1.1") -> Step:
    return lambda probe: probe.ask("leave", user, connection)


def goes_away(user: str, connection: str = "n1.1") -> Step:
    return lambda probe: probe.ask("set_away", user, connection, 1)


def expires(user: str) -> Step:
    return lambda probe: probe.expire(user)


def expires_early(user: str) -> Step:
    """The key expires before its stored deadline."""

    def end(probe: Probe) -> None:
        probe.client.pexpire(probe.presence_key(user), 2)
        probe.advance_clock()

    return end


def passes(seconds: int) -> Step:
    return lambda probe: probe.pass_time(seconds * 1000)


def loses_presence(user: str) -> Step:
    """The presence key is deleted externally."""
    return lambda probe: probe.client.delete(probe.presence_key(user))


def loses_shadow(user: str) -> Step:
    """The shadow is deleted externally."""

    def delete(probe: Probe) -> None:
        probe.client.delete(probe.shadow_key(user))
        probe.shadow_deleted = True

    return delete


def is_made_permanent(user: str) -> Step:
    """The presence key is made permanent externally."""
    return lambda probe: probe.client.persist(probe.presence_key(user))


def is_fenced(node: str) -> Step:
    return lambda probe: probe.on_shard("fence_node", "lobby", node, 100)


def is_lost(node: str) -> Step:
    """A node is fenced as lost, and detached from the lobby."""

    def lose(probe: Probe) -> None:
        probe.on_shard("fence_node", "lobby", node, 100)
        probe.on_shard("detach_node", "lobby", node, escape(probe.id("lobby")), GRACE, AWAY_GRACE)
        probe.on_shard("fence_node", "lobby", node, 100)

    return lose
