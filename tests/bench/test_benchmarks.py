"""The benchmark scripts at tiny sizes: they complete, and leave an existing server unchanged."""

import asyncio
import json
import shutil
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from scripts.benchmarks.gateway.tables import FIGURES, markdown
from tests.support.servers import Server
from tests.support.waiting import until

ROOT = Path(__file__).resolve().parents[2]
EXPIRY = (
    "--members=300", "--probes=4", "--over=0.4", "--ttls=0.3,0.5", "--patience=2.5", "--sweep=1",
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


async def test_the_expiry_benchmark_measures_each_mechanism(bundled_server: Server, tmp_path: Path):
    bundled_server.control.set("foreign", "stays")
    bundled_server.control.config_set("notify-keyspace-events", "g")
    flags = bundled_server.control.config_get("notify-keyspace-events")

    result = await run("bench_expiry.py", tmp_path, f"--redis-url={bundled_server.url}", *EXPIRY)

    ways = result["ways"]
    assert list(ways) == ["pacemaker", "events", "sweep"]
    assert [way["failures"] for way in ways.values()] == [0, 0, 0]
    for way in ("pacemaker", "sweep"):
        assert ways[way]["client"]["delivered"] == ways[way]["others"]["delivered"] == 4, ways[way]
    # Redis never expires a key early, and the clock offset is known well enough to show that.
    assert all(way["client"]["min_ms"] is None or way["client"]["min_ms"] > 0 for way in ways.values())
    assert result["idle_members_left"] == 300
    assert result["machine"]["cpu"]
    assert (tmp_path / "expiry.svg").read_text().startswith("<?xml")
    assert bundled_server.control.keys() == ["foreign"]
    assert bundled_server.control.config_get("notify-keyspace-events") == flags


async def test_the_redis_benchmark_measures_the_cost_of_members(bundled_server: Server, tmp_path: Path):
    result = await run("bench_redis.py", tmp_path, f"--redis-url={bundled_server.url}", *REDIS)

    (server,) = result["servers"]
    assert server["server"]["kind"] == "valkey"
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
        "bench_expiry.py", f"--redis-url={bundled_server.url}", f"--output={tmp_path}", "--members=1000000"
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


@pytest.mark.slow
@pytest.mark.timeout(400)
async def test_the_gateway_benchmark_measures_its_peers_and_how_costs_grow(tmp_path: Path):
    if shutil.which("npm") is None:
        pytest.skip("Socket.IO needs Node.js with npm")
    result = await run("bench_gateway.py", tmp_path, "--quick", "--only=heartbeats,storm,one_room,growth")

    assert set(result["heartbeats"]) - {"socketio"} == {"reactor", "websockets", "picows"}
    assert set(result["growth"]) == {"connections", "members", "workers"}
    table = markdown(result)
    assert all(line.work in table for line in FIGURES if line.part in {"heartbeats", "storm", "one_room"})
