"""What the scripts that take screenshots share: the browser, the image, and the command line."""

import argparse
import shutil
import sys
from base64 import b64encode
from collections.abc import Iterable
from pathlib import Path

from playwright.async_api import Browser, Page, Playwright

FRAME = """<style>body {{ margin: 0; padding: 24px; display: flex; gap: 24px; background: #888 }}
img {{ height: {height}px; border-radius: 12px }}</style>{images}"""


def target_of(doc: str | None, default: Path) -> Path:
    """Read the command line of a script that writes one image; return where to. doc: its docstring."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("target", nargs="?", type=Path, default=default)
    target: Path = parser.parse_args().target
    return target


async def launch_chromium(playwright: Playwright) -> Browser:
    """Start the Chromium on PATH, or end the script where there is none."""
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if chromium is None:
        sys.exit("error: no Chromium was found on PATH; on Debian: apt install chromium")
    return await playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])


async def take(page: Page) -> str:
    """Return a screenshot as a data URL."""
    return "data:image/png;base64," + b64encode(await page.screenshot()).decode()


async def write_beside(
    browser: Browser, target: Path, shots: Iterable[str], *, width: int, height: int
) -> None:
    """Write one image of screenshots beside each other. width: of the image; height: of each screenshot."""
    images = "".join(f'<img src="{shot}">' for shot in shots)
    page = await browser.new_page(viewport={"width": width, "height": height + 48})
    await page.set_content(FRAME.format(height=height, images=images))
    target.parent.mkdir(exist_ok=True)
    await page.screenshot(path=target)
    await browser.close()
    print(f"written: {target}")
