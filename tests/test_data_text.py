"""Texts: read in pieces, numbered once, cut into streams that go on exactly where they ended."""

import gzip
import struct
import tracemalloc
import zlib

import numpy as np
import pytest

from cnnlib import data
from cnnlib.data import Alphabet, Streams, numbered, read_text, texts
from cnnlib.errors import DataError, DtypeError, UnknownNameError, ValueRangeError

# ---- numbers


@pytest.mark.parametrize("size", [1, 3, 1000])
def test_pieces_give_the_numbers_of_the_whole(size):
    whole = "das Öl, die Ähre: 水\U0001f642.\n" * 5
    text = numbered([whole[k : k + size] for k in range(0, len(whole), size)])
    assert text.alphabet.characters == Alphabet(whole).characters
    assert text.numbers.tolist() == Alphabet(whole).encode(whole).tolist()
    assert text.alphabet.decode(text.numbers) == whole and len(text) == len(whole)


@pytest.mark.parametrize("different, width", [(1, 1), (256, 1), (257, 2)])
def test_a_number_takes_no_more_bytes_than_it_needs(different, width):
    whole = "".join(map(chr, range(32, 32 + different))) * 3
    numbers = numbered(whole[k : k + 100] for k in range(0, len(whole), 100)).numbers
    assert numbers.itemsize == width and numbers.max() == different - 1


def test_a_long_text_is_held_once_and_as_bytes(tmp_path):
    path = tmp_path / "long.txt"
    path.write_text("0123456789abcdefghijklmnopqrstuvwxyz \n" * 300_000)  # 11.4 million characters
    tracemalloc.start()
    text = read_text(path)
    kept, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(text) == 38 * 300_000 and text.numbers.nbytes == len(text)
    assert (
        kept < 1.01 * len(text) and peak < 2 * len(text) + 40e6
    )  # the pieces' own work takes some tens of MB, whatever the text


def test_split_keeps_the_end_of_the_text_back():
    train, held_out = numbered(["ab" * 500]).split()
    assert len(train) == 900 and len(held_out) == 100
    assert np.shares_memory(train, held_out.base)
    train, held_out = numbered(["ab" * 1_000_000]).split()
    assert len(held_out) == 100_000 and len(train) == 1_900_000
    assert [len(part) for part in numbered(["abab"]).split()] == [2, 2]
    with pytest.raises(DataError, match="text: a text of 3 characters is too short: 2 to learn from"):
        numbered(["aba"]).split()


def test_streams_of_a_text_that_was_not_split():
    with pytest.raises(
        DtypeError, match=r"text: expected its characters as numbers, got Text\(.*: pass one part of text.split"
    ):
        Streams(numbered(["abab"]), batch_size=1, length=2)


def test_an_empty_text_is_refused(tmp_path):
    for pieces in ([], ["", ""]):
        with pytest.raises(DataError, match="text: the text is empty: there is nothing to learn from"):
            numbered(pieces)
    (tmp_path / "empty.txt").touch()
    with pytest.raises(DataError, match=r"empty.txt: the text is empty"):
        read_text(tmp_path / "empty.txt")


# ---- files


def test_files_plain_and_zipped_with_any_line_ends(tmp_path):
    whole = "Ein Satz.\nUnd noch öfter einer.\n"
    (tmp_path / "plain.txt").write_bytes(b"\xef\xbb\xbf" + whole.replace("\n", "\r\n").encode())
    (tmp_path / "zipped.txt.gz").write_bytes(gzip.compress(whole.encode()))
    for name in ("plain.txt", "zipped.txt.gz"):
        text = read_text(tmp_path / name)
        assert text.alphabet.decode(text.numbers) == whole and text.name == name


@pytest.mark.parametrize("before", [0, 5, 15, 16, 17, 40])
def test_bytes_that_are_no_text_are_named_with_their_offset(tmp_path, monkeypatch, before):
    monkeypatch.setattr(texts, "PIECE", 16)
    path = tmp_path / "latin1.txt"
    path.write_bytes("ö".encode() * (before // 2) + b"x" * (before % 2) + b"\xfcber")
    with pytest.raises(DataError, match=rf"latin1.txt: not a text in UTF-8: byte 0xfc at offset {before} .*iconv"):
        read_text(path)


def test_the_encoding_of_windows_and_an_empty_name_are_named(tmp_path):
    (tmp_path / "utf16.txt").write_text("ein Satz", encoding="utf-16")
    with pytest.raises(DataError, match=r"byte 0xf[ef] at offset 0 .* iconv -f utf-16 -t utf-8"):
        read_text(tmp_path / "utf16.txt")
    with pytest.raises(DataError, match=r"expected the path of a file or one of austen, .*, sonnets, got an empty name"):
        read_text("")


def test_a_character_broken_off_at_the_end_is_named_too(tmp_path, monkeypatch):
    monkeypatch.setattr(texts, "PIECE", 16)
    (tmp_path / "cut.txt").write_bytes(b"x" * 15 + "水".encode()[:2])
    with pytest.raises(DataError, match="byte 0xe6 at offset 15"):
        read_text(tmp_path / "cut.txt")


def test_a_character_on_the_border_of_two_pieces_is_one(tmp_path, monkeypatch):
    monkeypatch.setattr(texts, "PIECE", 4)
    (tmp_path / "border.txt").write_bytes("abc水d\r\nf".encode())
    text = read_text(tmp_path / "border.txt")
    assert text.alphabet.decode(text.numbers) == "abc水d\nf"


def test_damaged_and_missing_files(tmp_path):
    packed = gzip.compress(b"some text " * 100)
    (tmp_path / "cut.txt.gz").write_bytes(packed[:-20])
    with pytest.raises(DataError, match=r"cut.txt.gz: the gzipped text is damaged"):
        read_text(tmp_path / "cut.txt.gz")
    with pytest.raises(DataError, match="is a folder: name one file of text"):
        read_text(tmp_path)
    with pytest.raises(DataError, match=r"none.txt: there is no such file of text"):
        read_text(tmp_path / "none.txt")
    with pytest.raises(UnknownNameError, match="unknown text 'shakespear': did you mean 'shakespeare'"):
        read_text("shakespear")


# ---- names


def test_the_bundled_sonnets():
    text = read_text("sonnets")
    assert text.alphabet.decode(text.numbers) == data.sonnets()
    assert repr(text) == "Text('sonnets', 95,650 characters, 62 different ones)"


def test_named_texts_are_found_below_cnnlib_data(tmp_path, monkeypatch):
    monkeypatch.delenv("CNNLIB_DATA", raising=False)
    with pytest.raises(
        DataError, match=r"latex: not on this machine. Put the unpacked .* or any text as latex.txt, into a folder"
    ):
        read_text("latex")
    monkeypatch.setenv("CNNLIB_DATA", str(tmp_path))
    folder = tmp_path / "latex"
    (folder / "b").mkdir(parents=True)
    with pytest.raises(DataError, match="latex: not on this machine"):
        read_text("latex")
    (folder / "b" / "two.tex").write_text("\\two")
    (folder / "one.tex.gz").write_bytes(gzip.compress(b"\\one "))
    (folder / "c.tex").write_bytes(b"\xfc is latin1")
    (folder / "README").write_text("no")
    text = read_text("latex")
    assert sorted(text.alphabet.decode(text.numbers).split("\\")) == ["", "one ", "two"]
    (folder / "latex.txt").write_text("my own")
    text = read_text("latex")
    assert text.alphabet.decode(text.numbers) == "my own"


def r_object(raw):
    return struct.pack(">i", len(raw)) + zlib.compress(raw)


def r_strings(*lines, version=3):
    raw = b"X\n" + struct.pack(">iii", version, 0x40201, 0x30500)
    raw += struct.pack(">i", 5) + b"UTF-8" if version == 3 else b""
    raw += struct.pack(">ii", 16, len(lines))
    for line in lines:
        raw += (
            struct.pack(">ii", 0x40009, -1) if line is None else struct.pack(">ii", 0x80009, len(line.encode())) + line.encode()
        )
    return raw


def test_novels_as_an_r_package_keeps_them(tmp_path, monkeypatch):
    folder = tmp_path / "austen" / "usr" / "janeaustenr" / "data"
    folder.mkdir(parents=True)
    numbers = b"X\n" + struct.pack(">iiiii", 2, 0, 0, 13, 1) + struct.pack(">i", 7)
    objects = [r_strings("EMMA", "", "Miß"), numbers, r_strings("Persuasion", None, "Sir", version=2)]
    (folder / "Rdata.rdb").write_bytes(b"".join(map(r_object, objects)))
    monkeypatch.setenv("CNNLIB_DATA", str(tmp_path))
    text = read_text("austen")
    assert text.alphabet.decode(text.numbers) == "EMMA\n\nMiß\nPersuasion\n\nSir\n"


@pytest.mark.parametrize(
    "data",
    [
        b"text",
        b"1",
        r_object(b"A\n" + bytes(40)),
        r_object(r_strings("one")[:-1] + b"\xff"),
        r_object(r_strings("one", "two")[:-6]),
        r_object(r_strings("one"))[:-3],
        struct.pack(">i", 9) + zlib.compress(b"X\n"),
        r_object(r_strings("one")[:23] + struct.pack(">iiii", 16, 1, 13, 0)),
    ],
)
def test_what_is_no_data_of_an_r_package(tmp_path, data):
    (tmp_path / "Rdata.rdb").write_bytes(data)
    with pytest.raises(DataError, match=r"Rdata.rdb: not the data of an R package, or damaged"):
        read_text(tmp_path / "Rdata.rdb")


def test_the_list_of_texts_says_where_they_are(tmp_path, monkeypatch):
    monkeypatch.setenv("CNNLIB_DATA", str(tmp_path))
    (tmp_path / "austen").mkdir()
    (tmp_path / "austen" / "austen.txt").write_text("Emma Woodhouse")
    where = {row.name: row.where for row in texts.info()}
    assert set(where) == set(data.text_names()) - {"sonnets"}  # which is among the data sets
    assert where["austen"] == str(tmp_path / "austen") and "Linux source tree" in where["csource"]


# ---- streams


def test_each_stream_goes_on_where_it_ended_and_y_is_one_ahead():
    numbers = np.arange(1000)
    B, T = 7, 9
    batches = list(Streams(numbers, B, T).iterate(0))
    per_stream = 999 // B
    assert len(batches) == len(Streams(numbers, B, T)) == per_stream // T
    x, y = (np.concatenate(parts) for parts in zip(*batches, strict=True))
    assert x.dtype == y.dtype == np.int64 and batches[0][0].shape == (T, B)
    for b in range(B):
        assert x[:, b].tolist() == list(range(b * per_stream, b * per_stream + len(x)))
    assert np.array_equal(y, x + 1)


def test_a_pass_can_begin_anywhere_and_copies_nothing_of_the_text():
    numbers = np.random.default_rng(0).integers(0, 50, 501).astype(np.uint8)
    streams = Streams(numbers, 4, 5)
    whole, rest = list(streams.iterate(0)), list(streams.iterate(3, start_batch=11))
    assert len(rest) == len(whole) - 11
    assert all(np.array_equal(a, b) for p, q in zip(whole[11:], rest, strict=True) for a, b in zip(p, q, strict=True))
    assert np.shares_memory(streams._x, numbers) and np.shares_memory(streams._y, numbers)


def test_the_shortest_text_for_a_batch():
    assert len(Streams(np.arange(4 * 5 + 1), 4, 5)) == 1
    with pytest.raises(DataError, match=r"poem: 20 characters are too few for 4 streams of 5 steps.* = 21: take fewer streams"):
        Streams(np.arange(20), 4, 5, "poem")


@pytest.mark.parametrize("n, shape", [(1000, (10, 8)), (50, (10, 4)), (11, (10, 1)), (7, (6, 1)), (2, (1, 1))])
def test_fitting_takes_what_the_text_fills(n, shape):
    streams = Streams.fitting(np.arange(n), batch_size=8, length=10)
    assert next(streams.iterate(0))[0].shape == shape and len(streams) >= 1


def test_settings_and_numbers_that_make_no_sense():
    with pytest.raises(ValueRangeError, match=r"text: length must be a whole number of at least 1, got 0"):
        Streams(np.arange(10), 2, 0)
    with pytest.raises(ValueRangeError, match=r"text: batch_size must be a whole number of at least 1, got 1\.5"):
        Streams(np.arange(10), 1.5, 2)
    with pytest.raises(DtypeError, match=r"text: expected one row of integers, got shape \(10,\) of float64"):
        Streams(np.zeros(10), 2, 2)
    with pytest.raises(DtypeError, match=r"text: expected one row of integers, got str; text is encoded with Alphabet"):
        Streams("a text", 2, 2)
