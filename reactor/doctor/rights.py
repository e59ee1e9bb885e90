"""What the server's user has to be allowed, each with a way to try it that changes nothing. PURE.

Redis judges a user's rights before it looks at arguments and keys
(https://redis.io/docs/latest/operate/oss_and_stack/management/security/acl/), so each command is given what
makes it do nothing: a key that nobody has, or a value that it does not take.
"""

Words = tuple[str, ...]

KEY = "<key>"
"""Stands for a throwaway key, or a throwaway channel."""

ON_KEYS: dict[str, Words] = {
    "exists": (KEY,),
    "del": (KEY,),
    "persist": (KEY,),
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
    "xadd": (KEY, "NOMKSTREAM", "*", "field", "value"),
    "xinfo": ("STREAM", KEY),
    "xread": ("STREAMS", KEY, "0"),
    "xrange": (KEY, "-", "+"),
    "xrevrange": (KEY, "+", "-"),
}
"""Commands on keys, of the scripts and beside them, with arguments that change nothing.

`sadd` alone would: it is tried only where `srem` may follow."""

WITHOUT_KEYS: dict[str, Words] = {
    "ping": (),
    "evalsha": ("0" * 40, "1", KEY),
    "script|load": ("(",),
    "publish": (KEY, ""),
    "time": (),
    "info": ("server",),
}
OF_CLUSTERS: dict[str, Words] = {"spublish": (KEY, ""), "cluster|info": (), "cluster|slots": ()}
SUBSCRIBING: dict[str, Words] = {"subscribe": (KEY,), "unsubscribe": (KEY,)}
SUBSCRIBING_IN_CLUSTERS: dict[str, Words] = {"ssubscribe": (KEY,), "sunsubscribe": (KEY,)}

_OF_CONNECTIONS = {"ping"}


def rule(namespace: str, database: int, *, cluster: bool) -> str:
    """The rights of a user that may do what the server needs, and nothing else."""
    commands = [*WITHOUT_KEYS, *SUBSCRIBING, *ON_KEYS]
    if cluster:
        commands += [*OF_CLUSTERS, *SUBSCRIBING_IN_CLUSTERS]
    granted = " ".join(f"+{name}" for name in commands if name not in _OF_CONNECTIONS)
    return (
        f"resetkeys ~{{{namespace}:* resetchannels &{{{namespace}:* &__keyevent@{database}__:expired "
        f"-@all +@connection -client -client|kill {granted}"
    )


def right(command: str) -> str:
    """The rule that allows a command."""
    return "+@connection" if command in _OF_CONNECTIONS else f"+{command}"


def call(command: str, words: Words, key: str) -> Words:
    """The words by which a command is tried."""
    return (*command.upper().split("|"), *(key if word == KEY else word for word in words))
