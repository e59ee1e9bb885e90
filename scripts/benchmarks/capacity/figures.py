"""The table of figures for `reactor size`: each with its unit, what it is, and the result that it is from."""

from typing import Any


def figures(
    capacity: dict[str, Any], gateway: dict[str, Any], redis: dict[str, Any]
) -> dict[str, dict[str, Any]]:
    """Compute the figures from the results of three benchmarks.

    Where servers differ the dearer one counts, so that the answer holds for both.
    """
    servers = capacity["servers"]
    kept, storm = gateway["kept"]["reactor"], gateway["storm"]["reactor"]
    workers = {row["workers"]: row for row in gateway["growth"]["workers"]}
    many = max(gateway["growth"]["members"], key=lambda row: row["members"])

    def dearest(*path: str) -> float:
        values = []
        for server in servers:
            value: Any = server
            for step in path:
                value = value[step]
            values.append(float(value))
        return max(values)

    def us(seconds: float) -> float:
        return seconds * 1e6

    alone = us(kept["server_cpu_seconds"] / kept["heartbeats"])
    redis_alone = us(kept["redis_cpu_seconds"] / kept["heartbeats"])
    memory = [server["memory"] for server in redis["servers"]]
    moved = [row["us_a_moved_deadline"] for server in redis["servers"] for row in server["pacemaker"]]
    in_rooms = [one["layouts"]["rooms of 50"]["bytes_a_member"] for one in memory]
    table: dict[str, tuple[float, str, str, str]] = {
        "node_bytes": (dearest("node", "bytes"), "bytes", "a node without clients", "capacity"),
        "connection_bytes": (
            dearest("a_connection", "node_bytes"), "bytes", "a connection in one room, in its node",
            "capacity",
        ),
        "further_room_bytes": (
            dearest("a_further_room", "node_bytes"), "bytes",
            "each further room of a connection, in its node", "capacity",
        ),
        "data_bytes": (
            dearest("a_byte_of_data", "node_bytes"), "bytes",
            "each byte of a member's data, in every node that follows the room", "capacity",
        ),
        "node_open_files": (
            dearest("node", "open_files"), "", "open files of a node without clients", "capacity",
        ),
        "node_idle_core": (dearest("node", "core_share"), "cores", "a node without clients", "capacity"),
        "heartbeat_us": (alone, "us", "a heartbeat that arrives alone, in its node", "gateway: kept"),
        "join_us": (
            us(1 / storm["at_once"]["joins_per_cpu_second"]), "us",
            "a connection and its join in a room of 50, in the node", "gateway: storm, at once",
        ),
        "follow_us": (
            max(0.0, (workers[4]["join_us"] - workers[1]["join_us"]) / 3), "us",
            "a join and its departure, in each further node that follows the room",
            "gateway: growth, workers",
        ),
        "delivery_us": (
            us(1 / gateway["one_room"]["reactor"]["lone"]["deliveries_per_cpu_second"]), "us",
            "the delivery of one change to one member", "gateway: one room, single joins",
        ),
        "largest_node": (
            max(row["connections"] for row in gateway["growth"]["connections"]), "connections",
            "the most connections that were tried on one node", "gateway: growth, connections",
        ),
        "redis_member_bytes": (
            max(in_rooms), "bytes",
            f"a member with {memory[0]['payload']} bytes of name and data, rooms of 50", "redis: memory",
        ),
        "redis_payload_bytes": (
            memory[0]["payload"], "bytes", "name and data in the line above", "redis: memory",
        ),
        "redis_data_bytes": (
            dearest("a_byte_of_data", "redis_bytes"), "bytes", "each byte of a member's data", "capacity",
        ),
        "redis_node_core": (
            dearest("node", "redis_core_share"), "cores", "each node without clients, in Redis", "capacity",
        ),
        "redis_node_connections": (
            dearest("node", "redis_connections"), "", "connections of a node to a single Redis", "capacity",
        ),
        "redis_heartbeat_us": (
            redis_alone, "us", "a batch with one heartbeat, in Redis", "gateway: kept",
        ),
        "redis_member_us": (
            many["heartbeat_redis_us"], "us", f"a member in a large batch, with {many['members']:,} members",
            "gateway: growth, members",
        ),
        "redis_join_us": (
            storm["at_once"]["redis_us_a_join"], "us", "a join, in Redis", "gateway: storm, at once",
        ),
        "redis_departure_us": (
            max(server["departures"]["redis_cpu_us_a_departure"] for server in redis["servers"]), "us",
            "a departure by expiry that comes alone, in Redis", "redis: departures",
        ),
        "deadline_us": (
            max(one["node"] for one in moved), "us", "a deadline that moves, in the leader's node",
            "redis: pacemaker",
        ),
        "redis_deadline_us": (
            max(one["redis"] for one in moved), "us", "a deadline that moves, in Redis", "redis: pacemaker",
        ),
    }  # fmt: skip
    return {
        name: {"value": _rounded(value), "unit": unit, "of": what, "from": source}
        for name, (value, unit, what, source) in table.items()
    }


def _rounded(value: float) -> float:
    """Three significant digits: more would only say how noisy the measurement was."""
    rounded = float(f"{value:.3g}")
    return int(rounded) if rounded == int(rounded) else rounded
