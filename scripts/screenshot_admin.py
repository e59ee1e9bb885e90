"""Takes the screenshot of the overview for the README: three servers with some traffic, light and dark.

It needs the packages of the tests and a Chromium, and takes a minute.
"""

import json
import random
import sys
from contextlib import AsyncExitStack
from pathlib import Path

import anyio
from playwright.async_api import Browser, async_playwright
from websockets.asyncio.client import connect

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from reactor.admin import serving_admin
from reactor.backend.embedded import EmbeddedServer
from reactor.server.node import Node
from reactor.server.process import serve_node
from reactor.settings import Settings
from scripts.pictures import launch_chromium, take, target_of, write_beside

KEY = "only-for-this-picture-and-nothing-else"
PORT = 18765
ROOMS = ["lobby", "support", "quiz-7", "général", "ops", "standup", "café", "quiz-9"]
SECONDS = 60


async def live(node: Node, number: int) -> None:
    """Connect, join a room and leave it, in a loop."""
    url = f"ws://127.0.0.1:{node.gateway.port}/ws"
    while True:
        await anyio.sleep(random.expovariate(0.15))
        async with connect(url, ping_interval=None) as socket:
            room = random.choices(ROOMS, range(16, 0, -2))[0]
            await socket.send(json.dumps({"type": "join_room", "roomId": room, "userId": f"user-{number}"}))
            await anyio.sleep(random.expovariate(0.05))
            if random.random() < 0.7:
                await socket.send(json.dumps({"type": "leave_room", "roomId": room}))
                await socket.recv()
            else:
                socket.transport.abort()


async def shoot(browser: Browser, scheme: str) -> str:
    """Return a screenshot of the overview after SECONDS of traffic, as a data URL."""
    context = await browser.new_context(viewport={"width": 1120, "height": 1080}, color_scheme=scheme)  # type: ignore[arg-type]
    page = await context.new_page()
    await page.goto(f"http://127.0.0.1:{PORT}/")
    await page.get_by_label("Key").fill(KEY)
    await page.get_by_role("button", name="Sign in").click()
    await page.get_by_text("Live").wait_for()
    await anyio.sleep(SECONDS)
    return await take(page)


async def main(target: Path) -> None:
    """Run the servers and the traffic, and combine both screenshots into one image."""
    async with AsyncExitStack() as stack, async_playwright() as playwright:
        url = (await stack.enter_async_context(EmbeddedServer())).url
        nodes = [
            await stack.enter_async_context(
                serve_node(
                    Settings(
                        redis_url=url, port=0, grace=3, drain_seconds=0,
                        admin_port=PORT if first else None, admin_key=KEY.encode(),
                    ),
                    admin=serving_admin,
                )
            )
            for first in (True, False, False)
        ]  # fmt: skip
        browser = await launch_chromium(playwright)
        shots: dict[str, str] = {}

        async def keep(scheme: str) -> None:
            shots[scheme] = await shoot(browser, scheme)

        async with anyio.create_task_group() as traffic:
            for number in range(120):
                traffic.start_soon(live, nodes[number % 3], number)
            async with anyio.create_task_group() as looking:
                looking.start_soon(keep, "light")
                looking.start_soon(keep, "dark")
            traffic.cancel_scope.cancel()
        await write_beside(browser, target, (shots["light"], shots["dark"]), width=2312, height=1080)


if __name__ == "__main__":
    anyio.run(main, target_of(__doc__, Path("scripts/results/overview.png")))
