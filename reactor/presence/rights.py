"""The rights that the server needs of its Redis user, and whether it has them.

A user without one of them would leave changes half made: a script that is refused in its middle keeps what it
wrote before (https://redis.io/docs/latest/develop/programmability/eval-intro/). So they are asked for at the
start, and each second, without running anything; scripts that publish ask for that right before they write.
"""

import re
from asyncio import gather
from collections.abc import Callable, Collection
from itertools import cycle, islice
from math import ceil

import anyio
import msgspec

from reactor.backend.interface import Runner
from reactor.backend.target import Target
from reactor.errors import Unavailable
from reactor.presence.keys import Keyspace

Words = tuple[str, ...]

KEY = "<key>"
"""Stands for a key or a channel."""

KEY_COMMANDS: dict[str, Words] = {
    "exists": (KEY,),
    "del": (KEY,),
    "persist": (KEY,),
    "rename": (KEY, KEY),
    "pexpire": (KEY, "1"),
    "pexpireat": (KEY, "1"),
    "pexpiretime": (KEY,),
    "set": (KEY, "", "PX", "0"),
    "get": (KEY,),
    "hset": (KEY, "field", "value", "odd"),
    "hget": (KEY, "field"),
    "hmget": (KEY, "field"),
    "hgetall": (KEY,),
    "hdel": (KEY, "field"),
    "hexists": (KEY, "field"),
    "hlen": (KEY,),
    "hincrby": (KEY, "field", "none"),
    "sadd": (KEY, "member"),
    "srem": (KEY, "member"),
    "smembers": (KEY,),
    "srandmember": (KEY,),
    "sunionstore": (KEY, KEY),
    "zadd": (KEY, "none", "member"),
    "zrem": (KEY, "member"),
    "zrange": (KEY, "0", "0"),
    "zcard": (KEY,),
    "zcount": (KEY, "0", "0"),
    "zscore": (KEY, "member"),
    "zscan": (KEY, "0"),
    "hscan": (KEY, "0"),
    "sscan": (KEY, "0"),
    "xadd": (KEY, "NOMKSTREAM", "*", "field", "value"),
    "xdel": (KEY, "0-1"),
    "xtrim": (KEY, "MAXLEN", "1"),
    "xinfo": ("STREAM", KEY),
    "xread": ("STREAMS", KEY, "0"),
    "xrange": (KEY, "-", "+"),
    "xrevrange": (KEY, "+", "-"),
}
"""Commands on keys, used by scripts or directly, with arguments that change nothing.

Only `sadd` would change something: it is sent only if the user may also use `srem`."""

OTHER_COMMANDS: dict[str, Words] = {
    "ping": (),
    "evalsha": ("0" * 40, "1", KEY),
    "script|load": ("(",),
    "publish": (KEY, ""),
    "time": (),
    "info": ("server",),
}
CLUSTER_COMMANDS: dict[str, Words] = {"spublish": (KEY, ""), "cluster|info": (), "cluster|slots": ()}
SUBSCRIBE_COMMANDS = ("subscribe", "unsubscribe")
CLUSTER_SUBSCRIBE_COMMANDS = ("ssubscribe", "sunsubscribe")
CHANNEL_COMMANDS = frozenset({"publish", "subscribe", "spublish", "ssubscribe"})
"""Commands that are refused for want of a channel, too."""
OPTIONAL_COMMANDS = {
    "info": "another server after a failover is not recognised, and the version is not checked",
    "xdel": "a room that fills the log of changes pushes out those of others",
    "xtrim": "departures and changes for webhooks are capped by number alone",
    "rename": "a key of a wrong type stops its shard instead of being renamed aside",
}
"""What does not work without these; everything else does."""

READS = ("exists", "get", "hgetall")
"""Commands with any of which keys can be tried."""

IN_CONNECTION_CATEGORY = frozenset({"ping"})

MAX_RIGHTS_SHOWN = 5

_REFUSED_COMMAND = re.compile(r"to run the '([^']+)' command")

CHECK_INTERVAL = 1.0
"""Seconds between two checks."""

CHECKS_OF_ALL = 2
"""In how many checks each shard is asked once: so soon a right that is refused for one shard is found."""


def acl_rule(namespace: str, database: int, *, cluster: bool) -> str:
    """The ACL rule of a user that has the needed permissions and no others."""
    commands = [*OTHER_COMMANDS, *SUBSCRIBE_COMMANDS, *KEY_COMMANDS]
    if cluster:
        commands += [*CLUSTER_COMMANDS, *CLUSTER_SUBSCRIBE_COMMANDS]
    granted = " ".join(f"+{name}" for name in commands if name not in IN_CONNECTION_CATEGORY)
    return (
        f"resetkeys ~{{{namespace}:* resetchannels &{{{namespace}:* &__keyevent@{database}__:expired "
        f"-@all +@connection -client -client|kill {granted}"
    )


def granting_rule(missing: Collection[str], namespace: str, database: int, *, cluster: bool) -> str:
    """The ACL rule that adds the needed permissions to a user, and takes none away.

    missing: the rules of the permissions that are known to be missing. Patterns of keys and channels are left
    out where they are not needed, since Redis refuses them for a user that has all.
    """
    rule = acl_rule(namespace, database, cluster=cluster)
    tried = {"~": not {f"+{name}" for name in READS} <= {*missing}, "&": "+subscribe" not in missing}
    words = [
        word
        for word in rule.split()
        if not word.startswith(("reset", "-", "+@")) and (not tried.get(word[0], False) or word in missing)
    ]
    return " ".join([*words, "+ping", "+select"])


def missing_rights(target: Target, missing: tuple[str, ...]) -> str:
    """Return a sentence that names rights that the Redis user lacks, and the command that grants them."""
    user, rules = target.acl_user, " ".join(f"+{name}" for name in missing)
    if len(missing) > MAX_RIGHTS_SHOWN:
        return f"the Redis user {user} lacks {len(missing)} rights; `reactor doctor` shows the rule for them"
    if {"publish", "subscribe"} <= set(missing) <= CHANNEL_COMMANDS:
        # Redis only says yes or no to a command with its channel, and Redis 8 to none without.
        return (
            f"the Redis user {user} lacks {rules}, or the channels for them; `reactor doctor` shows the rule"
        )
    return f"the Redis user {user} lacks {rules}; grant it with ACL SETUSER {user} {rules}"


def refused_right(target: Target, namespace: str, reply: str) -> str:
    """Return a sentence that names the right for want of which no right can be asked for, with its fix.

    reply: Redis's words: about a command, such as EVALSHA, or about the keys.
    """
    command = _REFUSED_COMMAND.search(reply)
    if command is not None:
        return missing_rights(target, (command[1].lower(),))
    user = target.acl_user
    rule = f"~{{{namespace}:*"
    return (
        f"the Redis user {user} lacks {rule} ({reply.rstrip('.')}); grant it with ACL SETUSER {user} {rule}"
    )


class RightsMonitor:
    """Asks Redis whether this user has every right that is needed. `serve` has to run.

    on_change(missing): called with the names of the rights, when other ones are missing than before.
    `missing` holds them: commands, and `keys or channels` where all commands are refused in a shard.
    """

    def __init__(
        self, runner: Runner, keys: Keyspace, *, cluster: bool, on_change: Callable[[tuple[str, ...]], None]
    ) -> None:
        self._runner, self._on_change = runner, on_change
        self._keys = keys
        commands = KEY_COMMANDS | OTHER_COMMANDS | (CLUSTER_COMMANDS if cluster else {})
        # An open subscription stays when the right is taken away, but no room can be followed any more.
        commands |= dict.fromkeys(
            (*SUBSCRIBE_COMMANDS, *(CLUSTER_SUBSCRIBE_COMMANDS if cluster else ())), (KEY,)
        )
        self._commands = [name for name in commands if name not in OPTIONAL_COMMANDS]
        self._packed = msgspec.msgpack.encode(
            [(*name.upper().split("|"), *commands[name]) for name in self._commands]
        )
        self._by_prefix: dict[str, tuple[str, ...]] = {}
        self._refused: set[str] = set()  # prefixes of shards in which it cannot be asked
        self.missing: tuple[str, ...] = ()

    async def serve(self) -> None:
        """Check until cancelled."""
        prefixes = [self._keys.fleet, *self._keys.prefixes]
        following, number = cycle(prefixes), ceil(len(prefixes) / CHECKS_OF_ALL)
        while True:
            known = {prefix for prefix, missing in self._by_prefix.items() if missing}
            await gather(*map(self._check_unless_away, {*islice(following, number), *known, *self._refused}))
            self._report()
            await anyio.sleep(CHECK_INTERVAL)

    async def check(self) -> tuple[str, ...]:
        """Check every shard at once; return the missing rights. Raises Unavailable.

        Before the number of shards is known, only the keys about nodes are checked.
        """
        for prefix in [self._keys.fleet, *(self._keys.prefixes if self._keys.known else ())]:
            await self._check(prefix)
        self._report()
        return self.missing

    async def _check_unless_away(self, prefix: str) -> None:
        # Where it is refused itself, for a user without the shard's keys, the runner reports that.
        self._refused.discard(prefix)
        try:
            await self._check(prefix)
        except Unavailable:
            self._refused.add(prefix)

    async def _check(self, prefix: str) -> None:
        places = await self._runner.run("check_rights", prefix, self._packed)
        self._by_prefix[prefix] = tuple(self._commands[place - 1] for place in places)

    def _report(self) -> None:
        missing = tuple(sorted({name for names in self._by_prefix.values() for name in names}))
        if missing != self.missing:
            self.missing = missing
            self._on_change(missing)
