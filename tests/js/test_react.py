"""The hooks for React and React Native, on a real server."""

import pytest

from reactor.settings.rooms import read_rules
from tests.js.tools import LINKED, installed, run_node
from tests.servers import Server
from tests.system.running import served


@pytest.mark.parametrize("name", ["react", "server", "native"])
async def test_on_a_server(name: str, bundled_server: Server):
    installed()
    rules = read_rules({"brief-*": {"ttl": "1s", "message": "You were away too long."}}, "test")
    async with served(bundled_server, grace=5, rooms=rules) as node:
        url = f"ws://127.0.0.1:{node.gateway.port}/ws"
        await run_node(*LINKED, "--test", "--test-reporter=spec", f"react/{name}.test.mjs", REACTOR_URL=url)


async def test_their_types_are_those_that_they_promise():
    await run_node(installed() / "typescript" / "bin" / "tsc", "-p", "react/types")
