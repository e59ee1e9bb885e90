"""Each script against its header block, and that against what the store passes."""

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import pytest
from msgspec.structs import replace
from redis.exceptions import OutOfMemoryError

from reactor.backend.scripts import Script, load_scripts, read_header
from reactor.fleet.registry import NodeRecord, Registry
from reactor.presence.bans import Ban, Bans
from reactor.presence.changes import Change, ChangeLog, RequestRange, RequestRecord
from reactor.presence.format import open_format
from reactor.presence.keys import Entry, Keyspace
from reactor.presence.lua_sources import GROWING, lua_sources
from reactor.presence.people import PeopleStore
from reactor.presence.revocations import RevocationStore
from reactor.presence.rights import RightsMonitor
from reactor.presence.rows import DiffRow
from reactor.presence.rules import RoomRules
from reactor.presence.store import LostConnection, Store
from reactor.protocol.messages import Member
from reactor.server.full_watch import FullWatch
from reactor.settings import RoomRule, Settings
from tests.redis.presence.cases import probing
from tests.redis.presence.probe import TTL
from tests.support.keyspace import keyspace
from tests.support.servers import Server
from tests.support.stores import NAMESPACE, Direct, DirectRunner, done

SOURCES = lua_sources(departures_kept=10)
BODIES = {path.rpartition("/")[2].removesuffix(".lua"): text for path, text in SOURCES.scripts.items()}
NAMES = sorted(BODIES)
FILES = {**SOURCES.scripts, **SOURCES.library}

PUBLISHES = re.compile(
    r"\b(publish_diff|remove_members|settle_room|settle_member|start_grace|lower_room_deadline|publish_person|count_room|remove_rooms|set_ban)\(|\bPUBLISH\b"
)
CHANGE = Change(7, "1-1", 1, "lobby", DiffRow("e", 1, 2, 0, [], [], []))
WORD = re.compile(r"'([a-z]+)'")


class Arguments(NamedTuple):
    """What a header states of ARGV: the names that come once, and those that come for each member."""

    once: list[str]
    each: list[str]


def arguments(argv: str) -> Arguments:
    """Read `room, user; connection; then for each member: suffix (a note), ttl (ms)`."""
    while argv != (argv := re.sub(r"\s*\([^()]*\)", "", argv)):
        pass
    if argv.strip() == "none":
        return Arguments([], [])
    once, _, each = re.sub(r"(?:; then |^)for each member: ", "|", argv).partition("|")
    return Arguments(_names(once), _names(each))


def _names(text: str) -> list[str]:
    names = [name.strip() for name in re.split(r"[,;]", text) if name.strip()]
    assert all(re.fullmatch(r"[a-z_]+", name) for name in names), f"names, and notes in brackets: {names}"
    return names


def uses(body: str) -> tuple[set[int], tuple[int, int] | None, list[str]]:
    """The places of ARGV that a script reads, (first, step) of its loop, and what `unpack(ARGV)` is named."""
    places = {int(place) for place in re.findall(r"\bARGV\[(\d+)\]", body)}
    named: list[str] = []
    for names, first, last in re.findall(r"local ([\w, ]+) = unpack\(ARGV(?:, (\d+), (\d+))?\)", body):
        named = [name.strip() for name in names.split(",")]
        assert not last or int(last) - int(first) + 1 == len(named)
        places |= {place + int(first or 1) for place in range(len(named))}
    loop = re.search(r"for i = (\d+), #ARGV, (\d+) do", body)
    return places, (int(loop[1]), int(loop[2])) if loop else None, named


@pytest.mark.parametrize("name", NAMES)
def test_a_header_states_arguments_replies_and_publications(name: str) -> None:
    header = read_header(BODIES[name])
    assert {"ARGV", "Returns", "Publishes"} <= set(header) <= {"KEYS", "ARGV", "Returns", "Publishes"}
    assert all(header.values())
    first, *_ = BODIES[name].splitlines()
    assert re.match(r"-- [A-Z].*", first), "the first line is a sentence about its purpose"
    assert not first.startswith(("-- KEYS", "-- ARGV")), "the header block follows it"


@pytest.mark.parametrize("name", NAMES)
def test_a_script_reads_the_arguments_that_its_header_names(name: str) -> None:
    expected = arguments(read_header(BODIES[name])["ARGV"])
    places, loop, named = uses(BODIES[name])
    assert places == set(range(1, len(expected.once) + 1))
    assert loop == ((len(expected.once) + 1, len(expected.each)) if expected.each else None)
    assert named == expected.once[: len(named)], "the names are the same in both"


@pytest.mark.parametrize("name", NAMES)
def test_a_script_returns_the_words_that_its_header_names(name: str) -> None:
    returns = read_header(BODIES[name])["Returns"]
    said = {word for line in re.findall(r"return .*", BODIES[name]) for word in WORD.findall(line)}
    commands = {
        word for line in re.findall(r"return redis\.call\(.*", BODIES[name]) for word in WORD.findall(line)
    }
    assert said - commands - {"alive"} == set(WORD.findall(returns))


@pytest.mark.parametrize("name", NAMES)
def test_a_script_publishes_exactly_if_its_header_says_so(name: str) -> None:
    code = "\n".join(line for line in BODIES[name].splitlines() if not line.startswith("--"))
    silent = read_header(BODIES[name])["Publishes"].startswith("nothing")
    assert bool(PUBLISHES.search(code)) != silent


KEYS = keyspace(NAMESPACE)


class Recorder(DirectRunner):
    """Notes what is passed to each script."""

    def __init__(self, client: Any) -> None:
        super().__init__(client)
        self.passed: dict[str, set[int]] = {}

    async def run(self, name: str, prefix: str, *args: Any) -> Any:
        assert prefix.startswith(f"{{{NAMESPACE}:")
        self.passed.setdefault(name, set()).add(len(args))
        return await super().run(name, prefix, *args)


def call_everything(
    runner: Any, store: Store, registry: Registry, changes: ChangeLog, rules: RoomRules
) -> None:
    ann = Entry("lobby", "ann")
    people = PeopleStore(runner, KEYS)
    revocations = RevocationStore(runner, KEYS)
    bans, ban = Bans(runner, KEYS), Ban(user_id="ann", until=4_000_000_000_000)
    shard = KEYS.prefixes[7]
    calls: list[Any] = [
        open_format(runner, Keyspace(NAMESPACE), shards=None, default=16),
        store.join(ann, "n1.1", ttl=TTL), store.refresh(7, "n1", []),
        store.refresh(7, "n1", [("lobby:user:ann", TTL), ("lobby:user:bob", TTL)]),
        store.update(ann, username="A"), store.is_present(ann), store.page("lobby", "0", 10),
        store.set_away(7, []), store.set_away(7, [(ann, "n1.1", True)] * 2),
        store.count("lobby"), store.members("lobby"), store.rooms(7), store.claim(7, []),
        store.claim(7, ["lobby:user:ann", "lobby:user:bob"]), store.due(7, limit=10, retry=10),
        store.ask_nodes(7, []), store.ask_nodes(7, ["lobby:user:ann", "lobby:user:bob"]),
        store.audit(7, 0), store.audit_room(7, b"lobby", 0), store.audit_indexes(7),
        store.audit_connections(7, "n1", []), store.mark_shard_alive(7, lease=5000),
        store.follow_clock(7, step=2000, margin=1000),
        store.audit_connections(7, "n1", [("lobby:user:ann", "n1.1"), ("lobby:user:bob", "n1.2")]),
        store.renew_epoch("lobby", "run"), store.repeat_departure(ann, joined_at=1, reason="left", left_at=2),
        store.record_lost_member("lobby", Member("ann", "Ann", 1, 1), "left"),
        store.detach_all(7, []), store.detach_all(7, [LostConnection(ann, "n1.1", 1000, 1000, False)] * 2),
        store.leave(ann, "n1.1"), store.kick(ann),
        store.still_members("lobby", []), store.trim_logs(7, 1_000_000, 60_000),
        store.still_members("lobby", [Member("ann", "Ann", 1, 1), Member("bob", "Bob", 1, 1)]),
        bans.ban("ann", "lobby", seconds=60), bans._set("ann", None, 60_000, "", ""),
        bans._apply(7, ban, b"{}", "0"), bans._audit(shard), bans._audit(shard, copies=[ban, ban]),
        bans.page(), bans.unban("ann", "lobby"), bans.repeat(replace(ban, until=0, at=1), age=1),
        *(people._run("enter_people", 7, *["ann", "lobby", "t"] * rows) for rows in (0, 2)),
        *(people._run("exit_people", 7, 0, *["ann", "lobby", "t", "1"] * rows) for rows in (0, 2)),
        *(people._run("correct_people", 7, *["ann", "lobby", "t", "", "0"] * rows) for rows in (0, 2)),
        *(people._run("read_memberships", 7, "tokens", *["lobby", "ann"] * rows) for rows in (0, 2)),
        *(people._run("read_people", 7, *["ann"] * rows) for rows in (0, 2)),
        people.erase("ann"), people.forget_old(7, 1000, 10), people.page(7, "0"), people.exits(7, "0"),
        people.drop_exits(7, []), people.drop_exits(7, [(b"lobby:user:ann", b"1 t")] * 2),
        *(people._run("find_exits", 7, *KEYS.prefixes[7:7 + rows]) for rows in (0, 2)),
        people.rooms(7, "0"), people.tokens(7, [], new_token="t"),
        people.tokens(7, [("lobby", "0")] * 2, new_token="t"),
        *(people._run("missing_people", 7, *["ann", "lobby"] * rows) for rows in (0, 2)),
        store.fence_node(7, "n1"), store.detach_node(7, "n1", b"lobby", grace=1000, away_grace=1000),
        registry.renew("n1", NodeRecord(1, "life", "-", "me"), lease_ms=1000, first=True), registry.nodes(),
        registry.acquire_leadership("job", "n1", ttl_ms=1000), registry.nodes_of_shard(7),
        registry.disconnect_user("ann", ""),
        revocations.restore({}), revocations.restore({"ann": 1, "bob": 2}), revocations.read(0),
        registry.deregister("n1"), registry.report("n1", b"{}", ttl_ms=1000), registry.reports(),
        store.publish_message("lobby", b"1"), store.publish_member_message(ann, "n1.1", b"1", None),
        RightsMonitor(runner, store.keys, cluster=False, on_change=lambda _missing: None).check(),
        FullWatch(runner).check(shard),
        rules.put(RoomRule(match="lobby", ttl=60)), rules.read("lobby"), rules.remove("lobby"),
        changes.read(7, "hook", limit=10), changes.confirm(CHANGE, "hook"),
        changes.begin_request("hook", RequestRecord(1000, [RequestRange(7, "0-1", "1-1", 1)])),
        changes.last_request("hook"), changes.read_range("hook", RequestRange(7, "0-1", "1-1", 1)),
        changes.record_refused("hook", b"{}", "status 413"),
    ]  # fmt: skip
    for call in calls:
        done(call)


def test_the_store_passes_the_arguments_that_the_headers_name_to_every_script(redis_server: Server) -> None:
    recorder: Any = Recorder(Direct(redis_server).client)
    call_everything(
        recorder, Store(recorder, KEYS), Registry(recorder, KEYS), ChangeLog(recorder, KEYS),
        RoomRules(Settings(namespace=NAMESPACE), recorder),
    )  # fmt: skip
    assert sorted(recorder.passed) == NAMES
    for name, numbers in recorder.passed.items():
        expected = arguments(read_header(BODIES[name])["ARGV"])
        fixed, each = len(expected.once), len(expected.each)
        if name in SOURCES.together:  # the runner puts such rows together
            assert numbers == {each}, name
        else:
            assert numbers == ({fixed, fixed + 2 * each} if each else {fixed}), name


def test_every_key_that_is_written_has_the_hash_tag_of_its_shard(redis_server: Server) -> None:
    direct = Direct(redis_server)
    rules = RoomRules(Settings(namespace=NAMESPACE), direct.runner)
    call_everything(direct.runner, direct.store, direct.registry, ChangeLog(direct.runner, KEYS), rules)
    done(direct.store.join(Entry("lobby", "ann"), "n1.2", ttl=TTL))
    keys = {key.decode() for key in direct.client.scan_iter("*")}
    assert keys
    assert {key.partition("}")[0] for key in keys} <= {"{t:7wc", "{t:3sc", "{t:fleet"}  # of lobby, and of ann


@pytest.mark.parametrize("path", FILES)
def test_every_lua_file_is_formatted_alike(path: str) -> None:
    text = FILES[path]
    assert text.endswith("\n")
    assert not text.endswith("\n\n")
    assert text.isascii()
    for line in text.splitlines():
        assert len(line) <= 120
        assert line == line.rstrip()
        indent = len(line) - len(line.lstrip())
        assert "\t" not in line
        assert indent % 2 == 0
    code = "\n".join(line.partition("--")[0] for line in text.splitlines())
    assert not re.search(r"\b(KEYS\b(?!\[1\])|loadstring|dofile|SCAN'|KEYS')", code), (
        "no script searches all keys"
    )
    assigned = set(re.findall(r"^\s*([A-Za-z_]\w*) = ", code, re.MULTILINE))
    parameters = re.findall(r"function \w*\(([^)]*)\)", code)
    declared = set(re.findall(r"\w+", " ".join([*re.findall(r"local ([\w, ]+)", code), *parameters])))
    assert assigned <= declared, "no global is set"


def load(*, departures_kept: int = 10, publish: str = "PUBLISH") -> Mapping[str, Script]:
    return load_scripts(lua_sources(departures_kept=departures_kept), publish=publish)


def test_a_constant_changes_the_digests_of_the_scripts_that_use_it() -> None:
    few, many, sharded = load(departures_kept=1), load(departures_kept=2), load(publish="SPUBLISH")
    assert sorted(few) == NAMES
    assert few["join"].digest != many["join"].digest != sharded["join"].digest
    assert few["report"].digest == many["report"].digest
    assert "local PUBLISH='SPUBLISH'\n" in sharded["join"].source


def test_at_most_312_kb_are_loaded_into_each_primary() -> None:
    assert sum(len(script.source.encode()) for script in load().values()) <= 312_000


def test_every_declaration_of_the_library_is_used() -> None:
    linked = "\n".join(script.source for script in load().values())
    declared = re.findall(r"^local (?:function )?(\w+)", "\n".join(SOURCES.library.values()), re.MULTILINE)
    assert [
        name for name in declared if not re.search(rf"^local (function )?{name}\b", linked, re.MULTILINE)
    ] == []


def test_only_scripts_that_need_the_time_or_the_run_id_read_them() -> None:
    reads_time = {name for name, script in load().items() if "'TIME'" in script.source}
    takes_run_id = {name for name, script in load().items() if script.takes_server}
    asks_for_run_id = {name for name, script in load().items() if "'INFO','server'" in script.source}
    assert not reads_time & {
        "report",
        "list_nodes",
        "list_rules",
        "still_members",
        "audit_rooms",
        "shard_nodes",
    }
    assert not takes_run_id & {"refresh", "renew_lease", "read_changes", "publish_message", "fence_node"}
    assert asks_for_run_id == {"mark_shard_alive"}, "in all others it would take most of their time"


def test_the_digests_are_those_that_redis_finds(redis_server: Server) -> None:
    client: Any = Direct(redis_server).client
    for script in load().values():
        assert client.script_load(script.source) == script.digest


# What they cost.


def commands(client: Any) -> Mapping[str, int]:
    stats = client.info("commandstats")
    ours = {name.removeprefix("cmdstat_"): figures["calls"] for name, figures in stats.items()}
    for outside in ("evalsha", "eval", "info", "config|resetstat", "script|load"):
        ours.pop(outside, None)
    return ours


def test_a_heartbeat_costs_two_commands_a_member_and_writes_no_index(redis_server: Server) -> None:
    with probing(redis_server) as probe:
        users = [f"u{number}" for number in range(500)]
        probe.join_many(users)
        probe.refresh(*users)
        probe.client.config_resetstat()
        assert probe.refresh(*users)[1] == b"1" * 500
        spent = commands(probe.client)
        assert sum(spent.values()) <= 2 * len(users) + 2
        assert set(spent) == {"pexpireat", "hset", "exists", "time"}


def test_heartbeats_in_an_idle_room_publish_nothing(redis_server: Server) -> None:
    with probing(redis_server) as probe:
        users = [f"u{number}" for number in range(100)]
        probe.join_many(users)
        probe.received()
        for _ in range(2):
            probe.refresh(*users)
            probe.pass_time(25_000)
            probe.due()
        received = probe.received()
        assert (received.changes, received.wakes, received.expired) == ([], [], [])


def test_a_full_redis_refuses_only_what_makes_it_grow(redis_server: Server) -> None:
    client: Any = Direct(redis_server).client
    usual = {"room": "lobby", "user": "ann", "connection": "n1.1", "node": "n1", "cursor": 0, "away": 0,
             "commands": b"\x90"}  # fmt: skip
    refused = set()
    client.config_set("maxmemory", 1)
    for name, script in load().items():
        names = arguments(read_header(BODIES[name])["ARGV"])
        try:
            client.eval(
                script.source,
                1,
                "{t:7wc}",
                *(usual.get(one, 1000) for one in (*names.once, *names.each)),
                *["run"] * script.takes_server,
            )
        except OutOfMemoryError:
            refused.add(name)
    assert refused == GROWING
