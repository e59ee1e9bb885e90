"""The hooks for React and React Native and the composable for Vue, on a real server."""

import time

import jwt
import pytest

from reactor.settings.rooms import read_rules
from tests.js.tools import LINKED, installed, run_node
from tests.support.nodes import served
from tests.support.servers import Server

RUN = (*LINKED, "--test", "--test-reporter=spec")


@pytest.mark.parametrize(
    "name", ["react/react", "react/mistakes", "react/server", "react/native", "react/people", "vue/vue"]
)
async def test_on_a_server(name: str, bundled_server: Server):
    installed()
    rules = read_rules({"brief-*": {"ttl": "1s", "message": "You were away too long."}}, "test")
    grace = 3 if name == "react/native" else 5
    async with served(bundled_server, grace=grace, rooms=rules) as node:
        url = f"ws://127.0.0.1:{node.gateway.port}/ws"
        await run_node(*RUN, f"{name}.test.mjs", REACTOR_URL=url, GRACE=str(grace))


async def test_with_tokens(bundled_server: Server):
    installed()
    secret = "a secret of at least thirty-two bytes"
    claims = {"sub": "ann", "rooms": ["*"], "exp": time.time() + 60}
    good, bad = (jwt.encode(claims, key, "HS256") for key in (secret, secret[::-1]))
    limited = jwt.encode(claims | {"rooms": ["lobby"]}, secret, "HS256")
    async with served(bundled_server, auth_secret=secret) as node:
        url = f"ws://127.0.0.1:{node.gateway.port}/ws"
        await run_node(
            *RUN, "react/token.test.mjs",
            REACTOR_URL=url, GOOD_TOKEN=good, BAD_TOKEN=bad, LIMITED_TOKEN=limited,
        )  # fmt: skip


async def test_the_code_matches_its_type_declarations():
    await run_node(installed() / "typescript" / "bin" / "tsc", "-p", "react/types")
