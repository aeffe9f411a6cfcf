"""Checkpoint files: what comes back, what is refused, and that no failure while writing does harm."""

import errno
import json
import os
import subprocess
import sys

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import cnnlib as cl
from cnnlib import nn, optim
from cnnlib.data import Compose, Normalize, RandomCrop, RandomFlip
from cnnlib.errors import CheckpointError
from cnnlib.train import checkpoint, preprocessing


def network(hidden=5):
    cl.manual_seed(3)
    return nn.Sequential(nn.Linear(4, hidden), nn.BatchNorm1d(hidden), nn.Tanh(), nn.Linear(hidden, 2))


def trained():
    net = network()
    optimizer = optim.Adam(net.parameters(), lr=0.1)
    x = np.random.default_rng(0).standard_normal((6, 4)).astype(np.float32)
    nn.CrossEntropyLoss()(net(x), np.arange(6) % 2).backward()
    optimizer.step()
    return net, optimizer


@pytest.fixture
def written(tmp_path):
    net, optimizer = trained()
    about = {"name": "mlp", "options": {"hidden": [5]}, "classes": ["a", "b"]}
    path = checkpoint.save(tmp_path / "net.safetensors", net, optimizer, **about)
    return path, net, optimizer


def same(a, b):
    assert a.keys() == b.keys()
    for key in a:
        assert np.asarray(a[key]).dtype == np.asarray(b[key]).dtype and np.array_equal(a[key], b[key]), key


def test_everything_comes_back(written):
    path, net, optimizer = written
    saved = checkpoint.load(path)
    same(saved.model, net.state_dict())
    same(saved.optimizer, optimizer.state_dict())
    assert (saved.name, saved.options, saved.classes) == ("mlp", {"hidden": [5]}, ("a", "b"))
    assert saved.training is None and saved.transform() is None
    assert saved.environment["version"] == cl.__version__ and saved.environment["dtype"] == "float32"
    other = network()
    saved.load_into(other)
    same(other.state_dict(), net.state_dict())


def test_trees_of_all_kinds_come_back(tmp_path):
    tree = {
        "numbers": {0: 1.5, 7: [1, 2, {"x": None}]}, "nan": float("inf"), "text": "ü", "yes": True, "scalar": np.float32(0.1),
        "arrays": {"a": {"b": np.arange(6.0).reshape(2, 3).T}, "a.b": np.array(3, np.int64)},
        "none": np.zeros((0, 2), np.float32), "float64": np.array([1 / 3]), "bool": np.array([True, False]),
    }  # fmt: skip
    back = checkpoint.load(checkpoint.save(tmp_path / "c", network(), training=tree)).training
    assert back["numbers"] == tree["numbers"] and back["nan"] == float("inf") and back["text"] == "ü" and back["yes"] is True
    assert back["scalar"] == float(np.float32(0.1))
    assert np.array_equal(back["arrays"]["a"]["b"], tree["arrays"]["a"]["b"])
    assert back["arrays"]["a.b"].shape == () and back["arrays"]["a.b"] == 3
    assert back["none"].shape == (0, 2) and back["float64"][0] == 1 / 3 and back["bool"].tolist() == [True, False]


def test_other_programs_can_read_the_arrays(written):
    path, net, _ = written
    arrays = load_file(path)
    assert np.array_equal(arrays["model.0.weight"], net[0].weight.data)
    assert "optimizer.0.m" in arrays


def test_a_folder_stands_for_its_last_checkpoint(written, tmp_path):
    path, net, _ = written
    (tmp_path / "run").mkdir()
    path.rename(tmp_path / "run" / "last.safetensors")
    same(checkpoint.load(tmp_path / "run").model, net.state_dict())


def test_preprocessing_comes_back(tmp_path):
    transform = Compose([RandomFlip(), Normalize([0.1, 1 / 3], [0.5, 0.7])])
    steps = preprocessing.describe(preprocessing.without_chance(transform))
    path = checkpoint.save(tmp_path / "c", network(), preprocessing=steps)
    x = np.random.default_rng(0).random((3, 2, 4, 4)).astype(np.float32)
    assert np.array_equal(checkpoint.load(path).transform()(x, np.arange(3), 0, 0), transform.transforms[1](x))


def test_the_middle_of_what_training_cut_at_random_comes_back(tmp_path):
    steps = preprocessing.describe(preprocessing.without_chance(Compose([RandomCrop((4, 2)), RandomFlip()])))
    path = checkpoint.save(tmp_path / "c", network(), preprocessing=steps)
    x = np.random.default_rng(0).random((3, 2, 7, 6)).astype(np.float32)
    assert np.array_equal(checkpoint.load(path).transform()(x, np.arange(3), 0, 0), x[:, :, 1:5, 2:4])


# ---- what is refused


@pytest.mark.parametrize("length", [0, 1, 7, 8, 100, 0.5, -1])
def test_a_truncated_file_is_refused(written, length):
    path, _, _ = written
    data = path.read_bytes()
    path.write_bytes(data[: int(length * len(data)) if isinstance(length, float) else length])
    with pytest.raises(CheckpointError, match=r"net\.safetensors.*truncated"):
        checkpoint.load(path)


def test_any_changed_byte_is_refused(written):
    path, _, _ = written
    data = path.read_bytes()
    for place in [*range(0, len(data), 41), len(data) - 1]:
        path.write_bytes(data[:place] + bytes([data[place] ^ 4]) + data[place + 1 :])
        with pytest.raises(CheckpointError, match=r"net\.safetensors"):
            checkpoint.load(path)


def test_bytes_at_the_end_are_refused(written):
    path, _, _ = written
    path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(CheckpointError):
        checkpoint.load(path)


@pytest.mark.parametrize("content", [b"", b"hello", b"\x80\x04N.", b"PK\x03\x04" + bytes(100), b"\xff" * 64])
def test_files_of_other_kinds_are_refused(tmp_path, content):
    (tmp_path / "x").write_bytes(content)
    with pytest.raises(CheckpointError, match="x: cannot be read"):
        checkpoint.load(tmp_path / "x")


def test_foreign_safetensors_are_refused(tmp_path):
    save_file({"w": np.ones(2)}, tmp_path / "x.safetensors")
    with pytest.raises(CheckpointError, match=r"x\.safetensors: a safetensors file, but not a checkpoint of cnnlib"):
        checkpoint.load(tmp_path / "x.safetensors")


def test_missing_files_are_named(tmp_path):
    with pytest.raises(CheckpointError, match=r"nothing: there is no such checkpoint"):
        checkpoint.load(tmp_path / "nothing")
    with pytest.raises(CheckpointError, match=r"last\.safetensors: there is no such checkpoint"):
        checkpoint.load(tmp_path)


def test_a_newer_format_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "FORMAT", 2)
    path = checkpoint.save(tmp_path / "x", network())
    monkeypatch.undo()
    with pytest.raises(CheckpointError, match="has format 2, this version of cnnlib reads format 1"):
        checkpoint.load(path)


def test_the_checksum_covers_the_settings(written):
    path, _, _ = written
    from safetensors import safe_open

    with safe_open(path, "np") as file:
        metadata, arrays = file.metadata(), {key: file.get_tensor(key) for key in file.keys()}
    content = json.loads(metadata["cnnlib"])
    content["classes"] = ["b", "a"]
    save_file(arrays, path, {**metadata, "cnnlib": json.dumps(content)})
    with pytest.raises(CheckpointError, match="checksum does not match"):
        checkpoint.load(path)


def test_another_model_is_told_apart_and_left_alone(written):
    path, _, _ = written
    other = network(hidden=6)
    before = other.state_dict()
    with pytest.raises(CheckpointError, match=r"of another model \(mlp\)") as error:
        checkpoint.load(path).load_into(other)
    assert "0.weight has shape (5, 4), the model expects (6, 4)" in str(error.value)
    assert str(error.value).endswith("Build the model that was saved, or name another file or folder.")
    same(other.state_dict(), before)
    with pytest.raises(CheckpointError, match=r"unexpected: 1\.bias"):
        checkpoint.load(path).load_into(nn.Sequential(nn.Linear(4, 5)))


# ---- writing


def fail(*_, **__):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def half_then_full(original):
    calls = []

    def write(file, data):
        calls.append(1)
        if len(calls) > 1:
            fail()
        return original(file, bytes(data[: len(data) // 2]))

    return write


@pytest.mark.parametrize("function", ["write", "open", "fsync", "replace"])
@pytest.mark.parametrize("existing", [True, False])
def test_a_full_disk_leaves_the_old_file_and_no_rest(tmp_path, monkeypatch, function, existing):
    net, optimizer = trained()
    path = tmp_path / "net.safetensors"
    if existing:
        checkpoint.save(path, net)
    old = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint.os, function, half_then_full(os.write) if function == "write" else fail)
        with pytest.raises(CheckpointError, match=r"net\.safetensors: .* not be written: No space left on device") as error:
            checkpoint.save(path, net, optimizer)
    assert ("unharmed" in str(error.value)) == existing
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == old
    checkpoint.save(path, net, optimizer)
    assert checkpoint.load(path).optimizer is not None


def test_short_writes_are_completed(tmp_path, monkeypatch):
    write = os.write
    monkeypatch.setattr(checkpoint.os, "write", lambda file, data: write(file, bytes(data[:1000])))
    net, optimizer = trained()
    same(checkpoint.load(checkpoint.save(tmp_path / "c", net, optimizer)).model, net.state_dict())


def test_the_new_file_is_on_the_disk_before_it_takes_the_place_of_the_old(tmp_path, monkeypatch):
    order = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(checkpoint.os, "fsync", lambda file: (order.append("fsync"), fsync(file)))
    monkeypatch.setattr(checkpoint.os, "replace", lambda a, b: (order.append("replace"), replace(a, b)))
    checkpoint.save(tmp_path / "c", network())
    assert order[:2] == ["fsync", "replace"] and (order[2:] == ["fsync"] or os.name == "nt")


def test_ctrl_c_while_writing_leaves_no_rest(tmp_path, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(checkpoint.os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        checkpoint.save(tmp_path / "c", network())
    assert list(tmp_path.iterdir()) == []


def test_the_rest_of_a_killed_run_is_no_obstacle(tmp_path):
    (tmp_path / ".c.tmp").write_bytes(b"x" * 10**6)
    checkpoint.save(tmp_path / "c", network())
    assert [file.name for file in tmp_path.iterdir()] == ["c"]
    checkpoint.load(tmp_path / "c")


def test_folders_are_made_and_files_in_their_place_are_named(tmp_path):
    checkpoint.save(tmp_path / "a" / "b" / "c", network())
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match="could not be written"):
        checkpoint.save(tmp_path / "file" / "c", network())


def test_options_that_json_cannot_hold_are_refused_before_writing(tmp_path):
    with pytest.raises(CheckpointError, match="type set is not JSON serializable"):
        checkpoint.save(tmp_path / "c", network(), options={"kinds": {1, 2}})
    assert list(tmp_path.iterdir()) == []


def test_importing_cnnlib_and_training_loads_neither_rich_nor_safetensors():
    code = "import sys, cnnlib, cnnlib.train; print([m for m in ('rich', 'safetensors', 'matplotlib') if m in sys.modules])"
    root = os.path.dirname(os.path.dirname(__file__))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=root)
    assert done.stdout.strip() == "[]", done.stderr
