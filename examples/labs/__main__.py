"""All labs: `python -m examples.labs --help`."""

from __future__ import annotations

import argparse
import importlib
import sys
import time
import traceback
from types import ModuleType

from cnnlib.cli.pipe import reader_may_leave
from cnnlib.errors import DataError
from examples.labs import lab, table

LABS = (  # from the shortest to the longest
    "optimiser_paths",
    "linear_posterior",
    "noise",
    "classical",
    "intervals",
    "bottleneck",
    "initialisation",
    "corruptions",
    "sparsity",
    "dropout",
    "overcomplete",
    "deep_autoencoder",
    "batch_norm",
    "pretraining",
    "learning_rate",
    "response_norm",
    "overlapping_pooling",
    "relu_tanh",
    "gan_ring",
    "posterior",
    "residual",
    "connectivity",
    "char_rnn",
    "translation",
    "resnet20",
    "systems",
)


def load(name: str) -> ModuleType:
    return importlib.import_module(f"examples.labs.{name}")


def run_all(names: list[str], quick: bool) -> list[str]:
    """Runs the labs one after the other, and writes the page after each; the names of those that failed."""
    failed = []
    for name in names:
        try:
            lab.run(load(name), quick)
            if not quick:
                write_table()
        except DataError as reason:  # no data, nothing to look for in the code
            print(f"{name}: {reason}", file=sys.stderr)
            failed.append(name)
        except BrokenPipeError:
            raise
        except Exception:  # the others shall run all the same
            traceback.print_exc()
            failed.append(name)
    return failed


def write_table() -> None:
    table.write([load(name) for name in LABS])


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m examples.labs", description=__doc__)
    parser.add_argument("labs", nargs="*", metavar="LAB", help="some of them; default: all")
    parser.add_argument("--quick", action="store_true", help="a few small runs of each, kept apart in runs/labs-quick")
    parser.add_argument("--list", action="store_true", help="names, expected minutes, claims")
    parser.add_argument("--table", action="store_true", help="write the findings into docs/labs.md, from the stored figures")
    args = parser.parse_args()
    names = args.labs or list(LABS)
    if unknown := sorted(set(names) - set(LABS)):
        parser.error(f"there is no lab {', '.join(unknown)}; there are {', '.join(LABS)}")
    if args.list:
        for name in names:
            print(f"{name:20} {load(name).MINUTES:4g} min   {load(name).CLAIM}")
        print(f"{'together':20} {sum(load(name).MINUTES for name in names):4g} min")
        return 0
    if args.table:
        write_table()
        return 0
    started = time.perf_counter()
    failed = run_all(names, args.quick)
    print(f"\n{len(names) - len(failed)} labs in {(time.perf_counter() - started) / 60:.1f} minutes.")
    if failed:
        print(f"Failed: {', '.join(failed)}.")
    return 1 if failed else 0


if __name__ == "__main__":
    with reader_may_leave():
        sys.exit(main())
