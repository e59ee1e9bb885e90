"""Writes the tables of the gateway benchmark as Markdown.

python scripts/bench_gateway_tables.py scripts/results/gateway.json                    prints the tables
python scripts/bench_gateway_tables.py scripts/results/gateway.json scripts/README.md  puts it there
"""

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from scripts.benchmarks.gateway.tables import markdown, put_into


def main() -> None:
    """Print the tables, or insert them into a file."""
    result = json.loads(Path(sys.argv[1]).read_text())
    if len(sys.argv) > 2:
        path = Path(sys.argv[2])
        path.write_text(put_into(path.read_text(encoding="utf-8"), markdown(result)), encoding="utf-8")
    else:
        print(markdown(result), end="")


if __name__ == "__main__":
    main()
