"""Runs that are really killed, by SIGKILL or os._exit, and resumed in a new process: equal to the last bit.

As a program: ``python test_train_killed.py FOLDER OPTIMIZER EVENT COUNT HOW`` trains and dies at the COUNT-th EVENT.
"""

import itertools
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
EVENTS = ("on_step_start", "on_loss", "on_gradients", "on_step", "on_epoch_end",
          "write", "before_replace", "after_replace", "fsync")  # fmt: skip


def die(how):
    if how == "kill" and hasattr(signal, "SIGKILL"):
        os.kill(os.getpid(), signal.SIGKILL)
    os._exit(9)


def train(folder, optimizer, event="never", count=0, how="exit"):
    """Train to the end, or die at the ``count``-th ``event`` of this process."""
    from cnnlib.train import Callback, checkpoint
    from tests.test_train_resume import EPOCHS, data, run

    counter = itertools.count(1)

    def due():
        return next(counter) == count

    class Death(Callback):
        pass

    def at_event(self, *_):
        if due():
            die(how)

    if event.startswith("on_"):
        setattr(Death, event, at_event)
    write, replace, fsync = os.write, os.replace, os.fsync

    def dying_write(file, content):
        if event == "write" and due():
            write(file, bytes(content[: len(content) // 2]))
            die(how)
        return write(file, content)

    def dying_replace(source, target):
        if event == "before_replace" and due():
            die(how)
        replace(source, target)
        if event == "after_replace" and due():
            die(how)

    def dying_fsync(file):
        if event == "fsync" and due():
            die(how)
        fsync(file)

    if not event.startswith("on_"):
        checkpoint.os.write, checkpoint.os.replace, checkpoint.os.fsync = dying_write, dying_replace, dying_fsync
    try:
        run(folder, optimizer, [Death()]).fit(data(), data(9), epochs=EPOCHS, resume=True)
    finally:
        checkpoint.os.write, checkpoint.os.replace, checkpoint.os.fsync = write, replace, fsync


@pytest.mark.parametrize("optimizer, seed", [("SGD", 0), ("Adam", 1)])
def test_killed_anywhere_and_resumed_it_ends_the_same(tmp_path, optimizer, seed):
    from cnnlib.train import load
    from tests.test_train_resume import EPOCHS, equal, everything

    train(tmp_path / "whole", optimizer)
    folder = tmp_path / "killed"
    chance = random.Random(seed)
    events = list(EVENTS)
    chance.shuffle(events)
    positions = [0]
    for event in events:
        count = chance.randint(1, 2 if event == "on_epoch_end" else 4)
        how = chance.choice(["exit", "kill"])
        done = _process(folder, optimizer, event, str(count), how)
        if done.returncode == 0:  # so near the end that the event did not come up any more
            break
        assert done.returncode in (9, -9), done.stderr
        files = {file.name for file in folder.glob("*")} if folder.exists() else set()
        assert files <= {"last.safetensors", "best.safetensors", ".last.safetensors.tmp", ".best.safetensors.tmp"}
        for name in files & {"last.safetensors", "best.safetensors"}:
            load(folder / name)
        if "last.safetensors" in files:
            positions.append(load(folder).training["position"]["step"])
    assert positions == sorted(positions) and len(set(positions)) > 2
    done = _process(folder, optimizer)
    assert done.returncode == 0, done.stderr
    for name in ("last", "best"):
        assert equal(everything(folder, name), everything(tmp_path / "whole", name)), (events, name)
    assert [row["epoch"] for row in load(folder).training["history"]] == list(range(1, EPOCHS + 1))


def _process(*arguments):
    command = [sys.executable, "-m", "tests.test_train_killed", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)


if __name__ == "__main__":
    folder, optimizer, *rest = sys.argv[1:]
    train(Path(folder), optimizer, *((rest[0], int(rest[1]), rest[2]) if rest else ()))
