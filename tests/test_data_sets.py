"""Bundled data, data sets by name, where files are looked for, downloads, text. Nothing here touches the network."""

import gzip
import hashlib
import io
import struct
import subprocess
import sys
import tarfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import cnnlib.data as data
from cnnlib.data import Alphabet, builtin, datasets, download, sequences
from cnnlib.errors import DataError, DtypeError, ShapeError, UnknownNameError, ValueRangeError


@pytest.fixture(autouse=True)
def no_other_data(tmp_path, monkeypatch):
    monkeypatch.delenv("CNNLIB_DATA", raising=False)
    monkeypatch.setenv("CNNLIB_CACHE", str(tmp_path / "cache"))


# --- bundled


def test_digits():
    train, test = data.digits()
    assert train.x.shape == (1437, 1, 8, 8) and test.x.shape == (360, 1, 8, 8)
    assert train.x.dtype == np.float32 and train.x.min() == 0 and train.x.max() == 1
    assert train.classes == tuple("0123456789")
    assert set(np.bincount(test.y)) <= {35, 36, 37}
    assert (train.name, test.name) == ("digits train", "digits test")
    pixels = {x.tobytes() for x in train.x}
    assert sum(x.tobytes() in pixels for x in test.x) == 0  # nothing is in both parts


def test_digits_32_are_the_same_digits():
    small, large = data.digits()[1], data.load("digits", size=32)[1]
    assert large.x.shape == (360, 1, 32, 32) and np.array_equal(large.x[:, :, ::4, ::4], small.x)
    assert np.array_equal(large.x[:, :, 3::4, 1::4], small.x) and np.array_equal(large.y, small.y)
    with pytest.raises(ValueRangeError, match="8 or 32, got 16"):
        data.digits(16)


def test_the_held_out_digits_never_change():
    _, test = data.digits()
    assert hashlib.sha256(np.uint8(test.x * 16).tobytes() + test.y.tobytes()).hexdigest()[:16] == "5649c2dfea0db6bb"


def test_fashion_subset_is_balanced():
    train, test = data.fashion(subset=True)
    assert train.x.shape == (3000, 1, 28, 28) and test.x.shape == (1000, 1, 28, 28)
    assert set(np.bincount(train.y)) == {300} and set(np.bincount(test.y)) == {100}
    assert train.x.max() == 1 and train.classes[9] == "Ankle boot"
    padded = data.load("fashion_subset", size=32)[1].x
    assert np.array_equal(padded[:, :, 2:-2, 2:-2], test.x) and padded.sum() == test.x.sum()


def test_bundled_files_are_small_and_documented():
    files = [p for p in builtin.FOLDER.rglob("*") if p.is_file()]
    assert sum(p.stat().st_size for p in files) < 4_000_000
    readme = (builtin.FOLDER / "README.md").read_text("utf-8")
    assert all(word in readme for word in ("digits/", "fashion/", "sonnets/", "CC BY 4.0", "MIT", "CC BY 2.5"))
    assert "Zalando" in (builtin.FOLDER / "fashion" / "LICENSE").read_text("utf-8")


def test_importing_is_light():
    code = "import sys, cnnlib.data; print([m for m in ('PIL', 'pooch', 'requests') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


# --- by name


def test_names_and_unknown_names():
    assert data.names() == ["cifar10", "digits", "fashion", "fashion_subset", "mnist", "reviews", "sonnets"]
    with pytest.raises(UnknownNameError, match="unknown data set 'minst': did you mean 'mnist'"):
        data.load("minst")
    with pytest.raises(UnknownNameError, match="did you mean 'digits'"):
        data.prefetch("digit")


def test_info_says_where_data_would_come_from(tmp_path, monkeypatch):
    where = {row.name: row.where for row in data.info()}
    assert where["digits"] == where["sonnets"] == where["fashion_subset"] == "bundled"
    assert where["mnist"] == "would download (11 MB)" and where["cifar10"] == "would download (170 MB)"
    write_mnist(tmp_path / "own" / "mnist")
    monkeypatch.setenv("CNNLIB_DATA", str(tmp_path / "own"))
    assert {row.name: row.where for row in data.info()}["mnist"] == str(tmp_path / "own" / "mnist")
    (tmp_path / "own" / "mnist" / "t10k-labels-idx1-ubyte.gz").unlink()
    assert "lacks t10k-labels" in {row.name: row.where for row in data.info()}["mnist"]


def test_prefetch_of_bundled_data_returns_its_files():
    for name in ("digits", "fashion_subset", "sonnets"):
        assert all(p.is_file() for p in data.prefetch(name)) and data.prefetch(name)


# --- CNNLIB_DATA


def idx(array):
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.astype(np.uint8).tobytes()


def write_mnist(folder, pack=gzip.compress, suffix=".gz", side=28):
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for part, n in (("train", 5), ("t10k", 3)):
        (folder / f"{part}-images-idx3-ubyte{suffix}").write_bytes(pack(idx(rng.integers(0, 256, (n, side, side)))))
        (folder / f"{part}-labels-idx1-ubyte{suffix}").write_bytes(pack(idx(np.arange(n))))


@pytest.mark.parametrize("pack, suffix", [(gzip.compress, ".gz"), (bytes, "")])
@pytest.mark.parametrize("name", ["mnist", "fashion"])
def test_local_files(tmp_path, monkeypatch, name, pack, suffix):
    write_mnist(tmp_path / name, pack, suffix)
    monkeypatch.setenv("CNNLIB_DATA", str(tmp_path))
    train, test = data.load(name)
    assert train.x.shape == (5, 1, 28, 28) and test.y.tolist() == [0, 1, 2] and train.x.max() <= 1
    assert data.load(name, size=32)[0].x.shape == (5, 1, 32, 32)
    assert len(data.prefetch(name)) == 4


def test_local_files_must_be_whole(tmp_path, monkeypatch):
    write_mnist(tmp_path / "mnist")
    monkeypatch.setenv("CNNLIB_DATA", str(tmp_path))
    with pytest.raises(ValueRangeError, match="size must be 28, or 32"):
        data.mnist(size=29)
    (tmp_path / "mnist" / "train-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(DataError, match=r"lacks train-labels-idx1-ubyte\.gz: put it"):
        data.mnist()
    write_mnist(tmp_path / "fashion", side=27)
    with pytest.raises(DataError, match=r"expected pictures of 28 × 28 pixels \(bytes 8 and 12\), found \(27, 27\)"):
        data.fashion()
    monkeypatch.setenv("CNNLIB_DATA", str(tmp_path / "nowhere"))
    with pytest.raises(DataError, match=r"CNNLIB_DATA is .* which is not a folder"):
        data.mnist()


@pytest.fixture
def cifar_files(monkeypatch):
    monkeypatch.setattr(datasets, "CIFAR_PER_FILE", 2)
    rng = np.random.default_rng(0)
    return {name: b"".join(bytes([k]) + rng.bytes(3072) for k in range(2)) for name in datasets.CIFAR_FILES}


def archive(files):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


@pytest.mark.parametrize("where", ["cifar10", "cifar10/cifar-10-batches-bin", "archive"])
def test_cifar10(tmp_path, monkeypatch, cifar_files, where):
    monkeypatch.setenv("CNNLIB_DATA", str(tmp_path))
    folder = tmp_path / ("cifar10" if where == "archive" else where)
    folder.mkdir(parents=True)
    if where == "archive":
        (folder / "cifar-10-binary.tar.gz").write_bytes(archive(cifar_files))
    else:
        for name, content in cifar_files.items():
            (folder / name).write_bytes(content)
    train, test = data.cifar10()
    assert train.x.shape == (10, 3, 32, 32) and test.x.shape == (2, 3, 32, 32)
    assert train.y.tolist() == [0, 1] * 5 and train.x.dtype == np.float32
    assert round(float(train.x[2, 0, 0, 0]) * 255) == cifar_files["data_batch_2.bin"][1]
    assert data.prefetch("cifar10")


def test_cifar10_files_must_be_whole(tmp_path, monkeypatch, cifar_files):
    monkeypatch.setenv("CNNLIB_DATA", str(tmp_path))
    folder = tmp_path / "cifar10"
    folder.mkdir()
    for name, content in cifar_files.items():
        (folder / name).write_bytes(content)
    (folder / "data_batch_3.bin").write_bytes(cifar_files["data_batch_3.bin"][:3073])
    with pytest.raises(DataError, match=r"data_batch_3\.bin .* holds 1 records instead of 2: it breaks off at byte 3,073"):
        data.cifar10()
    (folder / "test_batch.bin").unlink()
    with pytest.raises(DataError, match=r"lacks test_batch\.bin"):
        data.cifar10()


def test_cifar10_archives_must_be_whole(tmp_path, monkeypatch, cifar_files):
    monkeypatch.setenv("CNNLIB_DATA", str(tmp_path))
    (tmp_path / "cifar10").mkdir()
    path = tmp_path / "cifar10" / "cifar-10-binary.tar.gz"
    whole = archive(cifar_files)
    changed = bytearray(whole)
    changed[len(whole) // 2] ^= 1
    for content in (
        whole[: len(whole) // 2],
        whole[:-20],
        whole[:-1],
        bytes(changed),
        b"no archive",
        b"",
        archive(dict(list(cifar_files.items())[:5])),
        archive({**cifar_files, "data_batch_1.bin": b"short"}),
    ):
        path.write_bytes(content)
        with pytest.raises(DataError, match=r"cifar-10-binary\.tar\.gz: not a complete CIFAR-10 archive"):
            data.cifar10()


# --- downloads, with a stand-in for the network


CONTENT = b"the right bytes"
REMOTE = download.Remote("file.bin", hashlib.sha256(CONTENT).hexdigest(), ("https://one.invalid/", "https://two.invalid/"))


@pytest.fixture
def network(monkeypatch):
    """A dict {url: bytes or exception} in the place of the network, and the list of the urls asked for."""
    pooch = pytest.importorskip("pooch")
    answers, asked = {}, []

    def answer(self, url, output_file, pooch, check_only=False):
        asked.append(url)
        if isinstance(answers[url], Exception):
            raise answers[url]
        with open(output_file, "wb") as file:
            file.write(answers[url])

    monkeypatch.setattr(pooch.HTTPDownloader, "__call__", answer)
    return answers, asked


def cache_contents():
    return sorted(p.name for p in data.cache_dir().rglob("*") if p.is_file())


def test_downloads_are_kept(network):
    answers, asked = network
    answers["https://one.invalid/file.bin"] = CONTENT
    for _ in range(2):
        assert download.fetch("set", REMOTE).read_bytes() == CONTENT
    assert asked == ["https://one.invalid/file.bin"] and cache_contents() == ["file.bin"]


def test_a_wrong_file_is_not_kept_and_the_next_address_is_tried(network):
    answers, asked = network
    answers["https://one.invalid/file.bin"] = b"tampered with"
    answers["https://two.invalid/file.bin"] = CONTENT
    assert download.fetch("set", REMOTE).read_bytes() == CONTENT and len(asked) == 2
    assert cache_contents() == ["file.bin"]


@pytest.mark.parametrize("first, second", [(b"tampered with", b"too"), (b"", OSError("no route")), (OSError("x"), b"tampered")])
def test_nothing_is_left_behind_when_all_fail(network, first, second):
    answers, _ = network
    answers["https://one.invalid/file.bin"], answers["https://two.invalid/file.bin"] = first, second
    with pytest.raises(DataError) as error:
        download.fetch("set", REMOTE)
    message = str(error.value)
    assert "file.bin (set) could not be downloaded" in message and "does not have the SHA-256" in message
    assert "https://two.invalid/" in message and "CNNLIB_DATA" in message
    assert cache_contents() == []


def test_a_damaged_file_in_the_cache_is_replaced_or_removed(network):
    answers, _ = network
    target = data.cache_dir() / "set" / "file.bin"
    target.parent.mkdir(parents=True)
    target.write_bytes(CONTENT[:-1])
    answers["https://one.invalid/file.bin"] = answers["https://two.invalid/file.bin"] = OSError("offline")
    with pytest.raises(DataError, match="offline"):
        download.fetch("set", REMOTE)
    assert cache_contents() == []
    target.write_bytes(CONTENT[:-1])
    answers["https://one.invalid/file.bin"] = CONTENT
    assert download.fetch("set", REMOTE).read_bytes() == CONTENT


def test_a_cache_that_cannot_be_written(network, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv("CNNLIB_CACHE", str(tmp_path / "file"))
    network[0]["https://one.invalid/file.bin"] = network[0]["https://two.invalid/file.bin"] = CONTENT
    with pytest.raises(DataError, match=r"file\.bin \(set\) could not be downloaded"):
        download.fetch("set", REMOTE)


def test_data_sets_come_out_of_the_cache(tmp_path, monkeypatch, network):
    answers, _ = network
    write_mnist(tmp_path / "served")
    remotes = []
    for name in [remote.name for remote in datasets.REMOTES["mnist"]]:
        content = answers[f"https://one.invalid/{name}"] = (tmp_path / "served" / name).read_bytes()
        remotes.append(download.Remote(name, hashlib.sha256(content).hexdigest(), ("https://one.invalid/",)))
    monkeypatch.setitem(datasets.REMOTES, "mnist", tuple(remotes))
    assert len(data.prefetch("mnist")) == 4
    answers.clear()
    assert len(data.mnist()[0]) == 5
    assert {row.name: row.where for row in data.info()}["mnist"] == str(data.cache_dir() / "mnist")


def test_without_pooch_the_message_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "pooch", None)
    with pytest.raises(DataError, match=r'pip install "cnnlib\[data\]"'):
        data.mnist()


def test_every_remote_has_a_sha256():
    for remotes in datasets.REMOTES.values():
        for remote in remotes:
            assert len(remote.sha256) == 64 and remote.mirrors and all(m.endswith("/") for m in remote.mirrors)


@pytest.mark.parametrize("platform, variable", [("linux", "XDG_CACHE_HOME"), ("win32", "LOCALAPPDATA")])
def test_cache_dir(monkeypatch, tmp_path, platform, variable):
    assert data.cache_dir() == tmp_path / "cache"
    monkeypatch.delenv("CNNLIB_CACHE")
    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setenv(variable, str(tmp_path / "base"))
    assert data.cache_dir() == tmp_path / "base" / "cnnlib"


# --- text


def test_sonnets():
    text = data.sonnets()
    assert text.startswith("THE SONNETS") and "Shall I compare thee to a summer's day?" in text and "\r" not in text
    assert text.count("\n\nCLIV\n") == 1 and len(set(text)) == 62
    train, test = data.load("sonnets", length=50)
    assert train.x.shape[1] == 50 and train.x.dtype == np.int64 and len(train.classes) == len(test.classes) == 62
    assert np.array_equal(train.x[:, 1:], train.y[:, :-1])
    decode = Alphabet(text).decode
    assert text.startswith(decode(train.x.reshape(-1))) and decode(test.x.reshape(-1)) in text[len(text) * 9 // 10 :]
    assert len(text) - 101 < 50 * (len(train) + len(test)) < len(text)


@settings(deadline=None)
@given(st.text(min_size=1))
def test_encoding_and_back(text):
    alphabet = Alphabet(text)
    assert alphabet.decode(alphabet.encode(text)) == text and len(alphabet) == len(set(text))
    assert alphabet.encode("").tolist() == [] and alphabet.decode([]) == ""


def test_unknown_characters_and_numbers_are_named():
    alphabet = Alphabet("abc")
    assert alphabet.encode("cab").tolist() == [2, 0, 1]
    with pytest.raises(DataError, match=r"'x', 'y' are not among the 3 characters .* first is at position 2"):
        alphabet.encode("abyx")
    with pytest.raises(ValueRangeError, match="from 1 to 3, but the alphabet has 0 to 2"):
        alphabet.decode([1, 3])
    with pytest.raises(DtypeError, match="one row of integers"):
        alphabet.decode([[1]])
    with pytest.raises(DataError, match="an empty text"):
        Alphabet("")
    with pytest.raises(DataError, match="got int"):
        Alphabet(3)
    with pytest.raises(DataError, match=r"got list\. Words are numbered by a Vocabulary"):
        Alphabet(["a", "cat"])


def test_sequences_ask_for_the_next_token():
    got = sequences(np.arange(11), 5)
    assert got.x.tolist() == [[0, 1, 2, 3, 4], [5, 6, 7, 8, 9]] and got.y.tolist() == [[1, 2, 3, 4, 5], [6, 7, 8, 9, 10]]
    assert sequences(np.arange(11), 5, step=1).x[:, 0].tolist() == [0, 1, 2, 3, 4, 5]
    with pytest.raises(ShapeError, match="5 tokens are too few for one window of 5"):
        sequences(np.arange(5), 5)
    with pytest.raises(ValueRangeError, match="length must be"):
        sequences(np.arange(5), 0)
    with pytest.raises(DtypeError, match="Alphabet"):
        sequences("text", 2)
