"""The tables of the Redis benchmark, and whether the goals were reached."""

from collections.abc import Iterator
from typing import Any

from rich.table import Table

MOST_BYTES = 700
MOST_COMMANDS = 2
MOST_OF_A_CORE = 0.02


def tables_of(server: dict[str, Any]) -> Iterator[Table]:
    """Return a table for each measured part."""
    name = server["name"]
    if memory := server.get("memory"):
        yield _memory(name, memory)
    rows: list[tuple[str, str]] = []
    if heartbeats := server.get("heartbeats"):
        rows += [
            ("heartbeat: commands a member", _commands(heartbeats["commands_a_member"])),
            ("heartbeat: index writes", f"{heartbeats['index_writes']}"),
            *(
                (f"heartbeats in a CPU second, {way}", f"{rate:,}")
                for way, rate in heartbeats["members_a_cpu_second"].items()
            ),
            ("script against a pipeline", f"{heartbeats['script_against_pipeline']:.1f} times"),
            ("script against single ones", f"{heartbeats['script_against_single']:.1f} times"),
        ]
    if ends := server.get("departures"):
        rows += [
            ("departure: commands", f"{ends['all_commands_a_departure']}"),
            ("departure: of which", _commands(ends["commands_a_departure"])),
            ("departure: Redis's time", f"{ends['redis_cpu_us_a_departure']} us"),
        ]
    if silence := server.get("silence"):
        rows += [
            ("idle room: heartbeats", f"{silence['heartbeats']} of {silence['members']} members"),
            ("idle room: published", f"{silence['publish_commands']} messages"),
        ]
    for pacemaker in server.get("pacemaker", ()):
        rows += _pacemaker(pacemaker)
    if rows:
        table = Table(title=name, title_justify="left", show_header=False)
        table.add_column(no_wrap=True)
        table.add_column()
        for row in rows:
            table.add_row(*row)
        yield table


def verdicts(server: dict[str, Any]) -> Iterator[str]:
    """Return for each goal whether it was reached."""
    if memory := server.get("memory"):
        size = memory["layouts"]["rooms of 50"]["bytes_a_member"]
        yield _verdict(size <= MOST_BYTES, f"at most {MOST_BYTES} bytes a member in rooms of 50: {size:.0f}")
    if heartbeats := server.get("heartbeats"):
        good = heartbeats["work_a_member"] <= MOST_COMMANDS and heartbeats["index_writes"] == 0
        yield _verdict(good, f"a heartbeat is at most {MOST_COMMANDS} commands and no index write")
    if silence := server.get("silence"):
        quiet = silence["publish_commands"] == silence["messages_published"] == 0
        yield _verdict(quiet and not silence["messages_to_clients"], "an idle room is silent")
    for pacemaker in server.get("pacemaker", ()):
        share = sum(pacemaker["core_share"].values())
        yield _verdict(
            share < MOST_OF_A_CORE,
            f"the pacemaker of {pacemaker['members']:,} members uses under {MOST_OF_A_CORE:.0%} of a core, "
            f"at a TTL of {pacemaker['ttl']:g} s: {share:.2%}",
        )


def _memory(name: str, memory: dict[str, Any]) -> Table:
    layouts = memory["layouts"]
    table = Table(
        title=f"Bytes a member, {memory['members']:,} members, {memory['payload']} bytes of payload, {name}",
        title_justify="left",
    )
    table.add_column("")
    for layout in layouts:
        table.add_column(layout, justify="right")
    for part in dict.fromkeys(part for layout in layouts.values() for part in layout["parts"]):
        table.add_row(part, *(f"{layout['parts'].get(part, 0):.1f}" for layout in layouts.values()))
    table.add_row(
        "tables, rounding", *(f"{layout['tables']:.1f}" for layout in layouts.values()), end_section=True
    )
    table.add_row("all", *(f"{layout['bytes_a_member']:.1f}" for layout in layouts.values()))
    return table


def _pacemaker(pacemaker: dict[str, Any]) -> Iterator[tuple[str, str]]:
    share, cost, later = (
        pacemaker["core_share"],
        pacemaker["us_a_moved_deadline"],
        pacemaker["core_share_at_six_hours"],
    )
    yield "pacemaker: members, TTL", f"{pacemaker['members']:,}, {pacemaker['ttl']:g} s"
    yield (
        "pacemaker: deadlines moved",
        f"{pacemaker['deadlines_moved']:,}, {pacemaker['deadlines_moved_a_second']:,.0f} a second",
    )
    yield "pacemaker: of a core, Redis", f"{share['redis']:.2%}, {cost['redis']:.1f} us a deadline"
    yield "pacemaker: of a core, node", f"{share['node']:.2%}, {cost['node']:.1f} us a deadline"
    yield "the same at a TTL of 6 h", f"{later['redis'] + later['node']:.3%} of a core"
    yield "members lost meanwhile", str(pacemaker["lost_members"])


def _commands(counts: dict[str, float]) -> str:
    return ", ".join(f"{name} {count:g}" for name, count in counts.items())


def _verdict(good: bool, goal: str) -> str:
    return f"[green]reached[/] {goal}" if good else f"[red]missed[/] {goal}"
