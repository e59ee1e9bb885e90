"""Runs the JavaScript tests of the overview's arithmetic on Node.js."""

import subprocess
from pathlib import Path

from tests.js.tools import node_program


def test_rates_on_node() -> None:
    done = subprocess.run(
        [node_program(), "--test", str(Path(__file__).parent / "rates.test.mjs")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
