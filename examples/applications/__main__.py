"""All applications: `python -m examples.applications --help`."""

from __future__ import annotations

import argparse
import importlib
import sys
from types import ModuleType

from cnnlib.cli.pipe import reader_may_leave
from cnnlib.errors import CnnlibError
from examples.applications import app, page

NAMES = ("sentiment", "series", "captions", "video")


def load(name: str) -> ModuleType:
    return importlib.import_module(f"examples.applications.{name}")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m examples.applications", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="some of them; default: all")
    parser.add_argument("--tiny", action="store_true", help="on the tiny sets, which are generated or bundled")
    parser.add_argument(
        "--keep", action="store_true", help="measure for the page: keep the runs in examples/applications/results"
    )
    parser.add_argument("--list", action="store_true", help="names, expected minutes on the real data, shapes")
    parser.add_argument("--table", action="store_true", help="write the figures into docs/applications.md; runs nothing")
    args = parser.parse_args()
    names = args.names or list(NAMES)
    if unknown := sorted(set(names) - set(NAMES)):
        parser.error(f"there is no application {', '.join(unknown)}; there are {', '.join(NAMES)}")
    if args.list:
        for name in names:
            print(f"{name:10} {load(name).MINUTES:4g} min   {load(name).SHAPE}")
        return 0
    if args.table:
        page.write([load(name) for name in NAMES])
        return 0
    failed = []
    for name in names:
        try:
            app.run(load(name), args.tiny, args.keep)
        except CnnlibError as reason:  # such as data that are not there; the others shall run all the same
            print(f"{name}: {reason}", file=sys.stderr)
            failed.append(name)
        except KeyboardInterrupt:
            print(f"\n{name}: stopped; the same command goes on", file=sys.stderr)
            return 130
    return 1 if failed else 0


if __name__ == "__main__":
    with reader_may_leave():
        sys.exit(main())
