"""Takes the screenshot of the page for the README: two browsers in one room, light and dark.

It needs the packages of the tests and a Chromium.
"""

import sys
from pathlib import Path

import anyio
from playwright.async_api import Browser, Page, async_playwright

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from reactor.server.process import serve_node
from reactor.settings import Settings
from scripts.pictures import launch_chromium, take, target_of, write_beside

WIDE = {"width": 1120, "height": 780}
NARROW = {"width": 390, "height": 780}


async def open_page(browser: Browser, port: int, name: str, size: dict[str, int], scheme: str) -> Page:
    """A page that has joined the room."""
    context = await browser.new_context(viewport=size, color_scheme=scheme, reduced_motion="reduce")  # type: ignore[arg-type]
    page = await context.new_page()
    await page.goto(f"http://127.0.0.1:{port}/?room=demo-lobby&name={name}&user={name.lower()}")
    await page.get_by_role("button", name="Join").first.click()
    await page.get_by_text("acknowledged").wait_for()
    return page


async def main(target: Path) -> None:
    """Join a room with three browsers, and combine the windows of two into one image."""
    async with serve_node(Settings(port=0)) as node, async_playwright() as playwright:
        browser = await launch_chromium(playwright)
        ann = await open_page(browser, node.gateway.port, "Ann", WIDE, "light")
        bob = await open_page(browser, node.gateway.port, "Bob", NARROW, "dark")
        cleo = await open_page(browser, node.gateway.port, "Cleo", WIDE, "light")
        await cleo.get_by_role("button", name="Step away").click()
        await ann.get_by_text("Cleo stepped away").wait_for()
        await bob.get_by_text("Cleo stepped away").wait_for()
        shots = []
        for page in (ann, bob):
            await page.mouse.move(0, 0)
            await page.evaluate("scrollTo(0, 0)")
            shots.append(await take(page))
        await write_beside(browser, target, shots, width=1600, height=780)


if __name__ == "__main__":
    anyio.run(main, target_of(__doc__, Path("scripts/results/page.png")))
