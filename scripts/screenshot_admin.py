"""Takes the screenshot of the overview for the README: three servers with some traffic, light and dark.

usage: .venv/bin/python scripts/screenshot_admin.py [scripts/results/overview.png]
It needs the packages of the tests and a Chromium, and takes a minute.
"""

import json
import random
import shutil
import sys
from base64 import b64encode
from contextlib import AsyncExitStack
from pathlib import Path

import anyio
from playwright.async_api import Browser, async_playwright
from websockets.asyncio.client import connect

from reactor.admin import serving_admin
from reactor.backend.embedded import EmbeddedServer
from reactor.server.node import Node
from reactor.server.process import serve_node
from reactor.settings import Settings

KEY = "only-for-this-picture-and-nothing-else"
PORT = 18765
ROOMS = ["lobby", "support", "quiz-7", "général", "ops", "standup", "café", "quiz-9"]
SECONDS = 60
FRAME = """<style>body {{ margin: 0; padding: 24px; display: flex; gap: 24px; background: #888 }}
img {{ height: 1080px; border-radius: 12px }}</style><img src="{light}"><img src="{dark}">"""


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
    return "data:image/png;base64," + b64encode(await page.screenshot()).decode()


async def main(target: Path) -> None:
    """Run the servers and the traffic, and combine both screenshots into one image."""
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if chromium is None:
        sys.exit("error: no Chromium was found on PATH; on Debian: apt install chromium")
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
        browser = await playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
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
        frame = await browser.new_page(viewport={"width": 2312, "height": 1128})
        await frame.set_content(FRAME.format(**shots))
        await frame.screenshot(path=target)
        await browser.close()
    print(f"written: {target}")


if __name__ == "__main__":
    anyio.run(main, Path(sys.argv[1] if len(sys.argv) > 1 else "scripts/results/overview.png"))
