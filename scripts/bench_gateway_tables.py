"""Writes the tables of the gateway benchmark as Markdown.

python scripts/bench_gateway_tables.py scripts/results/gateway.json                    prints the tables
python scripts/bench_gateway_tables.py scripts/results/gateway.json scripts/README.md  puts it there
"""

import argparse
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from scripts.benchmarks.gateway.tables import markdown, put_into


def main() -> None:
    """Print the tables, or insert them into a file."""
    usage, _, examples = (__doc__ or "").partition("\n")
    parser = argparse.ArgumentParser(
        description=usage, epilog=examples, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("result", type=Path, help="the gateway.json of bench_gateway.py")
    parser.add_argument("document", type=Path, nargs="?", help="the document whose tables are replaced")
    arguments = parser.parse_args()
    tables = markdown(json.loads(arguments.result.read_text()))
    if arguments.document is None:
        print(tables, end="")
    else:
        text = arguments.document.read_text(encoding="utf-8")
        arguments.document.write_text(put_into(text, tables), encoding="utf-8")


if __name__ == "__main__":
    main()
