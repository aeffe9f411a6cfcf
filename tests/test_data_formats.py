"""The IDX and CIFAR readers: what they accept, and what they say about damaged files."""

import gzip
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cnnlib.data.formats import CIFAR_RECORD, parse_cifar, read_cifar, read_idx, read_images_and_labels
from cnnlib.errors import DataError


def idx(array, code=0x08):
    array = np.asarray(array)
    return struct.pack(f">HBB{array.ndim}I", 0, code, array.ndim, *array.shape) + array.tobytes()


PIXELS = (np.arange(2 * 3 * 4) % 256).astype(np.uint8).reshape(2, 3, 4)
IMAGES = idx(PIXELS)


def write(tmp_path, data, name="file-idx3-ubyte"):
    path = tmp_path / name
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("code, dtype", [(8, ">u1"), (9, ">i1"), (11, ">i2"), (12, ">i4"), (13, ">f4"), (14, ">f8")])
def test_idx_types(tmp_path, code, dtype):
    values = np.array([[1, -2, 3], [4, 5, -6]]).astype(dtype)
    got = read_idx(write(tmp_path, idx(values, code)))
    assert got.dtype == values.dtype.newbyteorder("=") and got.dtype.isnative and (got == values).all()


@pytest.mark.parametrize("name, pack", [("a", bytes), ("a.gz", gzip.compress), ("a.gz", bytes), ("a", gzip.compress)])
def test_idx_is_unpacked_by_content_not_by_name(tmp_path, name, pack):
    assert np.array_equal(read_idx(write(tmp_path, pack(IMAGES), name)), PIXELS)


@pytest.mark.parametrize("length", range(len(IMAGES)))
def test_every_truncation_of_an_idx_file_is_found(tmp_path, length):
    start = 0 if length < 4 else 4 if length < 16 else 16
    with pytest.raises(DataError, match=rf"ubyte: truncated: the file ends at byte {length}, .* from byte {start} on"):
        read_idx(write(tmp_path, IMAGES[:length]))


def test_every_truncation_of_a_gzipped_idx_file_is_found(tmp_path):
    packed = gzip.compress(IMAGES)
    for length in range(2, len(packed)):
        with pytest.raises(DataError, match=r"file\.gz: truncated: the gzip stream breaks off, at about byte \d+"):
            read_idx(write(tmp_path, packed[:length], "file.gz"))


def test_changed_bytes_in_a_gzip_stream_are_found(tmp_path):
    packed = gzip.compress(np.random.default_rng(0).bytes(0) + IMAGES)
    for place in range(10, len(packed)):
        damaged = bytearray(packed)
        damaged[place] ^= 0x55
        with pytest.raises(DataError, match=r"file\.gz: "):
            read_idx(write(tmp_path, bytes(damaged), "file.gz"))


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_bytes_after_the_end(tmp_path, pack):
    with pytest.raises(DataError, match="data should end at byte 40, but more bytes follow"):
        read_idx(write(tmp_path, pack(IMAGES + b"x")))


@pytest.mark.parametrize("magic", [b"\0\1\x08\3", b"\0\0\x07\3", b"\0\0\x08\0", b"\x89PNG", b"<htm", b"\x80\x04\x95\x00"])
def test_wrong_magic(tmp_path, magic):
    with pytest.raises(DataError, match=f"not an IDX file: byte 0 .* found {magic.hex(' ')}"):
        read_idx(write(tmp_path, magic + IMAGES[4:]))


def test_nonsense_dimensions_do_not_reserve_memory(tmp_path):
    huge = b"\0\0\x08\3" + struct.pack(">3I", 2**32 - 1, 2**32 - 1, 28)
    with pytest.raises(DataError, match=r"dimensions at byte 4.*header is damaged"):
        read_idx(write(tmp_path, huge))
    large = b"\0\0\x08\1" + struct.pack(">I", 2**31 - 1) + b"abc"
    with pytest.raises(DataError, match="ends at byte 11"):
        read_idx(write(tmp_path, gzip.compress(large)))


@settings(deadline=None)
@given(data=st.binary(max_size=64))
def test_random_bytes_never_crash_the_readers(tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "random"
    for content in (data, b"\0\0\x08\x01" + data, b"\x1f\x8b" + data):
        path.write_bytes(content)
        for reader in (read_idx, read_cifar):
            try:
                reader(path)
            except DataError as error:
                assert "random" in str(error)


def pair(tmp_path, images, labels):
    return write(tmp_path, images, "images"), write(tmp_path, labels, "labels")


def test_images_and_labels(tmp_path):
    x, y = read_images_and_labels(*pair(tmp_path, IMAGES, idx(np.array([9, 0], np.uint8))))
    assert np.array_equal(x, PIXELS) and y.tolist() == [9, 0] and y.dtype == np.int64


@pytest.mark.parametrize(
    "images, labels, words",
    [
        (IMAGES, idx(np.array([1, 2, 3], np.uint8)), "images holds 2 images but .*labels holds 3 labels"),
        (IMAGES, idx(np.array([3, 10], np.uint8)), "labels: label 10 at byte 9 is out of range: there are 10 classes"),
        (IMAGES, IMAGES, r"labels: expected labels \(N,\) of unsigned bytes, magic number 00 00 08 01"),
        (idx(np.array([3, 1], np.uint8)), idx(np.array([3, 1], np.uint8)), r"images: expected images \(N, H, W\)"),
        (IMAGES, idx(np.array([3, 1], ">i4"), 12), r"labels: expected labels .* type int32"),
    ],
)
def test_images_and_labels_must_fit(tmp_path, images, labels, words):
    with pytest.raises(DataError, match=words):
        read_images_and_labels(*pair(tmp_path, images, labels))


def record(label, seed):
    return bytes([label]) + np.random.default_rng(seed).bytes(CIFAR_RECORD - 1)


def test_cifar_records(tmp_path):
    data = record(3, 0) + record(9, 1)
    x, y = read_cifar(write(tmp_path, data))
    assert x.shape == (2, 3, 32, 32) and y.tolist() == [3, 9]
    assert x[1, 2, 31, 31] == data[-1] and x[0, 1, 0, 0] == data[1 + 1024]  # planes of 32 × 32


@pytest.mark.parametrize(
    "length, words",
    [
        (0, "0 bytes are not a whole number .* record 0 begins at byte 0 and has only 0"),
        (1, "record 0 begins at byte 0 and has only 1"),
        (CIFAR_RECORD - 1, "has only 3072"),
        (CIFAR_RECORD + 5, "record 1 begins at byte 3,073 and has only 5"),
    ],
)
def test_cifar_truncation(length, words):
    with pytest.raises(DataError, match="batch.bin: .*" + words):
        parse_cifar((record(0, 0) * 2)[:length], "batch.bin")


def test_cifar_labels():
    with pytest.raises(DataError, match=r"batch.bin: label 10 at byte 3,073 \(record 1\) is out of range"):
        parse_cifar(record(0, 0) + record(10, 1), "batch.bin")
