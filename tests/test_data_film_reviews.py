"""The reviews: what a table of them becomes, what is held out, and what is wrong with a damaged one."""

import csv
import zipfile

import numpy as np
import pytest

import cnnlib.data as data
from cnnlib.data import datasets, download
from cnnlib.data.film_reviews import REMOTE, TABLE, last_fifths, read_reviews, review_words, reviews
from cnnlib.errors import DataError, UnknownNameError, ValueRangeError

ROWS = [(f"Film number{i} was<br /><br />not, truly not: {'good' if i % 2 else 'bad'}!", str(i % 2), "imdb") for i in range(20)]


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("CNNLIB_DATA", str(tmp_path))
    monkeypatch.setenv("CNNLIB_CACHE", str(tmp_path / "cache"))
    return tmp_path / "reviews"


def write(folder, rows, header=("text", "label", "source")):
    path = folder / TABLE
    path.parent.mkdir(parents=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return path


def test_words_are_small_letters_without_marks_of_html():
    assert review_words('Don\'t go!<br /><br />"Alien 3" is 2-faced...') == [
        "don't",
        "go",
        "!",
        "alien",
        "3",
        "is",
        "2",
        "faced",
    ]


def test_a_row_is_the_end_of_a_review(folder):
    write(folder, ROWS)
    train, test, vocabulary = reviews(length=3, size=None)
    assert train.x.shape == (16, 3) and test.x.shape == (4, 3) and train.x.dtype == np.int64
    assert vocabulary.decode(train.x[0]) == ["not", "bad", "!"] and train.classes[train.y[0]] == "negative"
    short = reviews(length=10, size=None)[0]
    assert (short.x[:, -2:] == 0).all() and (short.x[:, :-2] > 0).all()


def test_the_vocabulary_knows_only_the_training_part_and_its_most_frequent_words(folder):
    write(folder, ROWS)
    train, test, vocabulary = reviews(length=8, size=None)
    numbered = [f"number{i}" for i in range(20)]
    assert [w in vocabulary for w in numbered] == [True] * 16 + [False] * 4  # the table's order is kept
    assert len(reviews(length=8, size=7)[2]) == 7
    assert (test.x == 1).sum() == 4 and (train.x == 1).sum() == 0


def test_the_last_fifth_of_each_class_is_held_out():
    held_out = last_fifths(np.array([0] * 10 + [1] * 5 + [0] * 10))
    assert np.flatnonzero(held_out).tolist() == [14, 21, 22, 23, 24]


def test_repeated_texts_come_once_and_other_sources_not(folder):
    write(folder, [*ROWS, ROWS[3], ("good .", "1", "rotten_tomatoes")])
    assert len(read_reviews()[0]) == 20
    assert read_reviews("rotten_tomatoes")[0] == ["good ."]


def test_the_package_that_holds_the_table_does_too(folder):
    table = write(folder, ROWS)
    with zipfile.ZipFile(folder / REMOTE.name, "w") as package:
        package.writestr(TABLE, table.read_bytes())
    table.unlink()
    assert read_reviews()[0] == [row[0] for row in ROWS]
    assert next(row.where for row in data.info() if row.name == "reviews") == str(folder)


def test_by_name(folder):
    path = write(folder, ROWS)
    train, test = data.load("reviews", length=5)
    assert (len(train), len(test)) == (16, 4) and data.prefetch("reviews") == [path]


def test_without_the_file_it_would_be_downloaded(monkeypatch):
    asked = []

    def fetch(name, remote):
        asked.append((name, remote))
        raise DataError("offline")

    monkeypatch.setattr("cnnlib.data.film_reviews.fetch", fetch)
    with pytest.raises(DataError, match="offline"):
        reviews()
    assert asked == [("reviews", REMOTE)] and datasets.REMOTES["reviews"] == (REMOTE,)
    assert "would download (13 MB)" in next(row.where for row in data.info() if row.name == "reviews")
    assert download.cached("reviews", REMOTE) is None


def test_damaged_tables_say_where(folder):
    path = write(folder, [*ROWS[:2], ("a text", "liked", "imdb")])
    with pytest.raises(
        DataError, match=r"csv: row 4 should hold text, label \(0 or 1\) and source, found 3 fields: a text, liked"
    ):
        read_reviews()
    path.write_bytes(b"text,label,source\nGr\xfc\xdfe,1,imdb\n")
    with pytest.raises(DataError, match="not a readable table of reviews"):
        read_reviews()
    path.write_text("text,label,source\n")
    with pytest.raises(DataError, match="no reviews of imdb"):
        read_reviews()
    path.unlink()
    (folder / REMOTE.name).write_bytes(b"PK nonsense")
    with pytest.raises(DataError, match="not a readable table"):
        read_reviews()


def test_wrong_settings(folder):
    with pytest.raises(UnknownNameError, match="source of reviews 'imbd': did you mean 'imdb'"):
        reviews(source="imbd")
    with pytest.raises(ValueRangeError, match="length must be at least 1 word, got 0"):
        reviews(length=0)
