"""The lecture's convolution of a 7×7×3 input with two 3×3×3 filters, as a page with a stepping window.

python examples/convolution_demo.py --out convolution_demo.html
"""

import argparse
from pathlib import Path

import numpy as np

from cnnlib import viz
from cnnlib.cli.pipe import reader_may_leave

# Channels of the image, without the ring of zeros that padding=1 adds to make it 7×7.
X = [
    "1 1 1 0 0 / 0 2 0 1 0 / 2 1 0 1 2 / 0 2 1 0 1 / 1 1 1 2 1",
    "2 1 1 1 0 / 0 1 2 1 1 / 0 0 2 0 2 / 0 2 2 2 2 / 1 2 1 0 1",
    "2 0 0 1 2 / 2 0 1 0 2 / 0 1 2 2 0 / 1 2 0 0 2 / 0 1 1 1 2",
]
W = [
    ["0 -1 1 / 1 0 -1 / 1 0 0", "0 -1 1 / 1 0 -1 / 0 0 1", "1 0 0 / 1 0 0 / 1 -1 -1"],
    ["0 0 1 / 1 1 1 / 0 0 -1", "-1 -1 1 / 0 1 -1 / -1 -1 -1", "0 1 0 / 1 0 0 / -1 -1 0"],
]
B = [1, 0]


def volume(channels: list[str]) -> np.ndarray:
    return np.array([[row.split() for row in channel.split("/")] for channel in channels], dtype=np.float32)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("convolution_demo.html"))
    out = parser.parse_args().out
    out.write_text(viz.convolution_demo(volume(X), np.stack([volume(f) for f in W]), B, stride=2, padding=1), encoding="utf-8")
    print(f"{out}: open it in a browser")


if __name__ == "__main__":
    with reader_may_leave():
        main()
