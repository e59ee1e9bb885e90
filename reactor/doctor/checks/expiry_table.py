"""What Redis's expired events alone would give on a server like this one, by measurement.

The table comes with the package; `scripts/bench_expiry.py --update-readme` makes it.
"""

import math
from collections.abc import Iterator
from functools import cache
from importlib.resources import files

import msgspec

from reactor.doctor.checks import deployment_check
from reactor.doctor.deployment import Deployment, InspectedServer
from reactor.doctor.finding import Finding, Subject

_FEW_KEYS = 100


class _Figures(msgspec.Struct):
    """delivered: how many probes were noticed. Milliseconds after the deadline; None: never."""

    delivered: int
    p50_ms: float | None
    p99_ms: float | None


class _Row(msgspec.Struct):
    """What was measured on one server. within_s: how long each probe was waited for."""

    server: str
    keys: int
    probes: int
    within_s: float
    events: _Figures | None = None
    effort: _Figures | None = None
    pacemaker: _Figures | None = None


class _Measured(msgspec.Struct):
    measured: str
    rows: list[_Row]


@deployment_check(order=61)
def expiry_table(deployment: Deployment) -> Iterator[Finding]:
    """Name the row of the table in which each primary stands."""
    for server in deployment.primaries:
        if (row := nearest_row(server)) is None or row.events is None:
            continue
        subject = Subject("expiry_table", "expired events alone", server.name, "any: the pacemaker is on")
        found = f"{_describe(server)}: as measured on {row.server} with {row.keys:,} keys, {_figures(row)}"
        if deployment.settings.pacemaker:
            yield subject.ok(found)
        else:
            yield Subject("expiry_table", subject.what, server.name, "the pacemaker").note(
                found, "set pacemaker on"
            )


def nearest_row(server: InspectedServer) -> _Row | None:
    """Return the row of the nearest release and number of keys with a TTL; None where INFO is not shown."""
    if "redis_version" not in server.info or not (rows := _table().rows):
        return None
    valkey = server.info.get("valkey_version")
    kind, version = ("Valkey", str(valkey)) if valkey else ("Redis", str(server.info["redis_version"]))
    keys = max(_keys_with_ttl(server), _FEW_KEYS)

    def distance(row: _Row) -> tuple[bool, float, float]:
        name, _, release = row.server.partition(" ")
        return name != kind, abs(_number(release) - _number(version)), abs(math.log(row.keys / keys))

    return min(rows, key=distance)


def _describe(server: InspectedServer) -> str:
    effort = server.setting("active-expire-effort")
    parts = [
        f"Valkey {server.info['valkey_version']}" if "valkey_version" in server.info
        else f"Redis {server.info['redis_version']}",
        f"hz {server.info.get('hz', '?')}",
        *([f"effort {effort}"] if effort is not None else []),
        f"{_keys_with_ttl(server):,} keys with a TTL",
    ]  # fmt: skip
    return ", ".join(parts)


def _figures(row: _Row) -> str:
    assert row.events is not None
    text = f"{row.events.delivered} of {row.probes} events came within {row.within_s:g} s"
    if row.events.p50_ms is not None:
        text += f", half of them {_late(row.events.p50_ms)} late or more"
    if row.pacemaker is not None and row.pacemaker.p50_ms is not None:
        text += f"; with the pacemaker half within {_late(row.pacemaker.p50_ms)}"
    return text


def _late(milliseconds: float) -> str:
    return f"{milliseconds:.0f} ms" if milliseconds < 1000 else f"{milliseconds / 1000:.1f} s"


def _keys_with_ttl(server: InspectedServer) -> int:
    databases = [value for name, value in server.info.items() if name.startswith("db") and name[2:].isdigit()]
    return sum(int(one.get("expires", 0)) for one in databases if isinstance(one, dict))


def _number(version: str) -> float:
    major, _, rest = version.partition(".")
    minor = rest.partition(".")[0]
    return float(major) + (float(minor) / 100 if minor.isdigit() else 0.0) if major.isdigit() else 0.0


@cache
def _table() -> _Measured:
    return msgspec.json.decode((files("reactor.doctor") / "expiry_table.json").read_bytes(), type=_Measured)
