"""The benchmark scripts at tiny sizes: they complete, and leave an existing server unchanged."""

import asyncio
import json
import shutil
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from scripts.bench_people import markdown as people_table
from scripts.bench_scale import markdown as scale_table
from scripts.benchmarks.expiry.report import read_result, update_documents
from scripts.benchmarks.expiry.stages import STAGES
from scripts.benchmarks.gateway.tables import FIGURES, markdown
from tests.support.servers import Server
from tests.support.waiting import until

ROOT = Path(__file__).resolve().parents[2]
EXPIRY = (
    "--keys=300", "--probes=8", "--over=0.5", "--ttls=0.5,0.7", "--patience=3", "--sweep=1", "--members=100",
    "--stage-probes=20", "--rates=50", "--rate-seconds=1", "--instant=50",
)  # fmt: skip
REDIS = (
    "--members=300", "--beating=300", "--rounds=2", "--departures=30", "--over=1", "--period=0.3",
    "--moving=300:2:2", "--baseline=0.5",
    "--heartbeat=0.5",
)  # fmt: skip


async def start(script: str, *arguments: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable, f"scripts/{script}", *arguments,
        cwd=ROOT, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip


async def run(script: str, output: Path, *arguments: str) -> dict[str, Any]:
    process = await start(script, f"--output={output}", *arguments)
    printed, _ = await process.communicate()
    assert process.returncode == 0, printed.decode()
    result: dict[str, Any] = json.loads(
        (output / script.replace("bench_", "").replace(".py", ".json")).read_text()
    )
    return result


@pytest.mark.parametrize("script", sorted(path.name for path in (ROOT / "scripts").glob("*_*.py")))
async def test_each_script_explains_itself(script: str):
    process = await start(script, "--help")
    printed, _ = await process.communicate()
    assert process.returncode == 0, printed.decode()
    assert printed.decode().startswith(f"usage: {script}")


async def test_the_expiry_lab_measures_each_way_and_leaves_a_running_server_as_it_was(
    bundled_server: Server, tmp_path: Path
):
    bundled_server.control.set("foreign", "stays")
    bundled_server.control.config_set("notify-keyspace-events", "g")
    flags = bundled_server.control.config_get("notify-keyspace-events")
    commands = bundled_server.control.command_list()

    result = await run("bench_expiry.py", tmp_path, f"--servers={bundled_server.url}", *EXPIRY)

    cells = {cell["way"]: cell for cell in result["matrix"]}
    ways = ["events", "effort", "sweep", "scan", "pacemaker", "touch"]
    assert list(cells) == ways + ["fields"] * ("hpexpire" in commands)
    for way in ("sweep", "scan", "pacemaker", "touch"):
        assert cells[way]["delivered"] == cells[way]["probes"] == 8, cells[way]
    # Redis never expires a key early, and the clock offset is known well enough to show that.
    assert all(late is None or late > 0 for cell in cells.values() for late in cell["late_ms"])
    assert list(result["stages"]["stages"]) == list(STAGES)
    assert result["stages"]["client"]["delivered"] == 20
    rates = result["rates"]["rows"]
    assert [row["pacemaker"]["delivered"] for row in rates] == [50, 50]
    assert all(row["heartbeat_busy"]["count"] > 0 for row in rates[:1])
    assert result["machine"]["cpu"]
    assert (tmp_path / "expiry.svg").read_text().startswith("<?xml")
    assert bundled_server.control.keys() == ["foreign"]
    assert bundled_server.control.config_get("notify-keyspace-events") == flags

    readme, table = tmp_path / "README.md", tmp_path / "table.json"
    readme.write_text("before\n<!-- table: expiry -->\n<!-- end expiry -->\nafter\n")
    update_documents(read_result(tmp_path / "expiry.json"), readme, table)
    text = readme.read_text()
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert all(label in text for label in ("a bare read at the deadline", "50 in one instant", "fan-out"))
    (row,) = json.loads(table.read_text())["rows"]
    assert (row["keys"], row["pacemaker"]["delivered"]) == (300, 8)


def test_a_figure_that_misses_its_goal_by_little_does_not_read_like_the_goal():
    (figure,) = (one for one in FIGURES if one.key == "server_cpu_seconds")
    assert figure.beside_goal(1.234) == "1.23 s"
    assert figure.beside_goal(1.2) == "1.2 s"
    assert figure.beside_goal(3.9) == "3.9 s"


async def test_the_capacity_benchmark_measures_what_nodes_hold(tmp_path: Path):
    result = await run("bench_capacity.py", tmp_path, "--quick")

    for server in result["servers"]:
        assert server["node"]["bytes"] > 10_000_000
        # Two lanes of scripts, two subscriptions, and one connection for single questions.
        assert server["node"]["redis_connections"] == 5
        assert server["a_connection"]["redis_bytes"] > 100
        assert server["a_byte_of_data"]["redis_bytes"] >= 1


async def test_the_redis_benchmark_measures_the_cost_of_members(bundled_server: Server, tmp_path: Path):
    result = await run("bench_redis.py", tmp_path, f"--redis-url={bundled_server.url}", *REDIS)

    (server,) = result["servers"]
    assert server["server"]["kind"] == bundled_server.control.info("server").get("server_name", "redis")
    layouts = server["memory"]["layouts"]
    assert list(layouts) == ["rooms of 50", "rooms of 5", "one room"]
    # With so few members the server's own memory dominates.
    assert all(100 < layout["bytes_a_member"] < 2000 for layout in layouts.values())
    assert server["heartbeats"]["index_writes"] == 0
    assert server["heartbeats"]["commands_a_member"].keys() == {"pexpireat", "hset"}
    assert sum(server["departures"]["found_by"].values()) == 30
    assert server["silence"]["heartbeats"] == 200
    assert server["silence"]["publish_commands"] == 0
    assert server["silence"]["messages_to_clients"] == {}
    (pacemaker,) = server["pacemaker"]
    assert pacemaker["deadlines_moved"] > 100
    assert pacemaker["lost_members"] == 0
    assert bundled_server.control.dbsize() == 0


async def test_the_scripts_benchmark_measures_every_case_of_each_variant(tmp_path: Path):
    old = tmp_path / "old.json"
    dump = await start("bench_scripts.py", f"--dump={old}")
    assert await dump.wait() == 0
    given = "--members=100", "--calls=8", "--rounds=1", "--functions", f"--against={old}"

    result = await run("bench_scripts.py", tmp_path, *given)

    assert result["bytes"]["scripts"] == result["bytes"]["against"] > result["bytes"]["functions"] > 0
    for server in result["servers"]:
        for name, cases in server["us_a_call"].items():
            assert len(cases) == (8 if name == "functions" else 7)
            assert all(0 < cost["lowest"] <= cost["median"] for cost in cases.values())


async def test_ctrl_c_leaves_an_existing_server_unchanged(bundled_server: Server, tmp_path: Path):
    process = await start(
        "bench_expiry.py", f"--servers={bundled_server.url}", f"--output={tmp_path}", "--keys=1000000"
    )
    await until(lambda: bundled_server.control.dbsize() >= 2000)
    process.send_signal(signal.SIGINT)
    async with asyncio.timeout(20):
        output, _ = await process.communicate()

    assert process.returncode == 130, output.decode()
    assert bundled_server.control.dbsize() == 0


async def test_the_gateway_benchmark_measures_the_reactor_alone(tmp_path: Path):
    parts = "heartbeats,kept,one_room,slow"
    result = await run("bench_gateway.py", tmp_path, "--quick", "--no-peers", f"--only={parts}")

    assert set(result["measured"]) == set(parts.split(","))
    assert result["heartbeats"]["reactor"]["per_cpu_second"] > 1000
    assert result["kept"]["reactor"]["other_messages"] == 0
    assert result["kept"]["reactor"]["heartbeats"] > 0
    assert result["one_room"]["reactor"]["lone"]["deliveries"] > 0
    assert result["one_room"]["reactor"]["list"]["members"] == 62
    assert result["slow"]["stalled"]["stalled"] == 1
    assert (tmp_path / "gateway.svg").read_text().startswith("<?xml")


async def test_the_benchmark_of_people_compares_with_and_without_the_index(tmp_path: Path):
    result = await run("bench_people.py", tmp_path, "--quick")

    assert result["join_alone_on_us"] > 0
    assert result["departure_together_off_us"] > 0
    assert result["answer_1000_ms"] > 0
    assert 0 < result["change_ms_p50"] <= result["change_ms_p99"]
    assert (result["publishes_a_change"], result["subscriptions"]) == (1, 2), "one message a node"
    assert people_table(result).count("| a departure") == 2


async def test_the_benchmark_of_bans_closes_every_socket(tmp_path: Path):
    result = await run("bench_bans.py", tmp_path, "--quick")

    assert set(result) >= {"call_ms", "closed_ms", "out_of_a_room_ms"}
    assert all(0 < result["closed_ms"][share] < 30_000 for share in ("p50", "p99", "longest"))


async def test_the_benchmark_of_watched_counts_ends_with_right_counts(tmp_path: Path):
    result = await run("bench_watch.py", tmp_path, "--quick")

    assert result["with_pages_percent"] > 0
    assert result["messages_a_second_and_page"] > 1


@pytest.mark.slow
@pytest.mark.timeout(400)
async def test_the_gateway_benchmark_measures_its_peers_and_how_costs_grow(tmp_path: Path):
    if shutil.which("npm") is None:
        pytest.skip("Socket.IO needs Node.js with npm")
    result = await run("bench_gateway.py", tmp_path, "--quick", "--only=heartbeats,storm,one_room,growth")

    assert set(result["heartbeats"]) - {"socketio"} == {"reactor", "websockets", "picows"}
    assert set(result["growth"]) == {"connections", "members", "workers"}
    assert all("bare_redis_us" in row for row in result["growth"]["members"])
    table = markdown(result)
    assert all(line.work in table for line in FIGURES if line.part in {"heartbeats", "storm", "one_room"})


@pytest.mark.slow
@pytest.mark.timeout(400)
async def test_the_scale_benchmark_loses_no_member_with_a_worker(tmp_path: Path):
    result = await run("bench_scale.py", tmp_path, "--quick", "--clients=200", "--silent=20", "--seconds=3")

    assert result["steady"]["heartbeats_a_second"] > 0
    assert result["silent"]["notified"] == 20
    for name in ("killed", "rolled"):
        assert result[name]["present"] == 200, result[name]
        assert result[name]["leaves_seen"] == 0, result[name]
        assert result[name]["returned"] > 0, result[name]
    assert "one worker killed" in scale_table(result)
