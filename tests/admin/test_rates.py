"""Runs the tests of the overview's arithmetic, which are JavaScript, on Node.js."""

import shutil
import subprocess
from pathlib import Path

import pytest

NODE = shutil.which("node")


@pytest.mark.skipif(NODE is None, reason="no node on PATH")
def test_rates_on_node() -> None:
    assert NODE is not None
    done = subprocess.run(
        [NODE, "--test", str(Path(__file__).parent / "rates.test.mjs")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
