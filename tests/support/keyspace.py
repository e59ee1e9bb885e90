"""The keys of a namespace with the usual number of shards, for tests that use the package's own names."""

from reactor.presence.keys import Entry, Keyspace

SHARDS = 16


def keyspace(namespace: str = "reactor", database: int = 0) -> Keyspace:
    return Keyspace(namespace, database, shards=SHARDS)


def shard_of(room_id: str) -> int:
    return keyspace().shard_of(room_id)


def shard_prefix(namespace: str, shard: int) -> str:
    return keyspace(namespace).prefixes[shard]


def presence_key(namespace: str, entry: Entry) -> str:
    return keyspace(namespace).presence_key(entry)


def shadow_key(namespace: str, entry: Entry) -> str:
    return keyspace(namespace).shadow_key(entry)


def departures_stream(namespace: str, shard: int) -> str:
    return keyspace(namespace).departures_stream(shard)


def diff_channel(namespace: str, room_id: str, database: int = 0) -> str:
    return keyspace(namespace, database).diff_channel(room_id)


def wake_channel(namespace: str, shard: int, database: int = 0) -> str:
    return keyspace(namespace, database).wake_channel(shard)
