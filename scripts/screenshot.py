"""Takes the screenshot of the page for the README: two browsers in one room, light and dark.

usage: .venv/bin/python scripts/screenshot.py [scripts/results/page.png]
It needs the packages of the tests and a Chromium.
"""

import shutil
import sys
from base64 import b64encode
from pathlib import Path

import anyio
from playwright.async_api import Browser, Page, async_playwright

from reactor.server.process import serve_node
from reactor.settings import Settings

WIDE = {"width": 1120, "height": 780}
NARROW = {"width": 390, "height": 780}
FRAME = """<style>body {{ margin: 0; padding: 24px; display: flex; gap: 24px; background: #888 }}
img {{ height: 780px; border-radius: 12px }}</style><img src="{wide}"><img src="{narrow}">"""


async def open_page(browser: Browser, port: int, name: str, size: dict[str, int], scheme: str) -> Page:
    """A page that has joined the lobby."""
    context = await browser.new_context(viewport=size, color_scheme=scheme, reduced_motion="reduce")  # type: ignore[arg-type]
    page = await context.new_page()
    await page.goto(f"http://127.0.0.1:{port}/?room=lobby&name={name}&user={name.lower()}")
    await page.get_by_role("button", name="Join").first.click()
    await page.get_by_text("acknowledged").wait_for()
    return page


async def main(target: Path) -> None:
    """Join a room with three browsers, and combine the windows of two into one image."""
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if chromium is None:
        sys.exit("error: no Chromium was found on PATH; on Debian: apt install chromium")
    async with serve_node(Settings(port=0, ttl=600.0)) as node, async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        ann = await open_page(browser, node.gateway.port, "Ann", WIDE, "light")
        bob = await open_page(browser, node.gateway.port, "Bob", NARROW, "dark")
        cleo = await open_page(browser, node.gateway.port, "Cleo", WIDE, "light")
        await cleo.get_by_role("button", name="Step away").click()
        await ann.get_by_text("Cleo stepped away").wait_for()
        await bob.get_by_text("Cleo stepped away").wait_for()
        shots = {}
        for name, page in (("wide", ann), ("narrow", bob)):
            await page.mouse.move(0, 0)
            await page.evaluate("scrollTo(0, 0)")
            shots[name] = "data:image/png;base64," + b64encode(await page.screenshot()).decode()
        target.parent.mkdir(exist_ok=True)
        frame = await browser.new_page(viewport={"width": 1600, "height": 828})
        await frame.set_content(FRAME.format(**shots))
        await frame.screenshot(path=target)
        await browser.close()
    print(f"written: {target}")


if __name__ == "__main__":
    anyio.run(main, Path(sys.argv[1] if len(sys.argv) > 1 else "scripts/results/page.png"))
