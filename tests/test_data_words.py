"""Words, vocabularies and padding."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cnnlib.data.words import END, START, UNKNOWN, Vocabulary, lengths, pad, words
from cnnlib.errors import DataError, DtypeError, ShapeError, ValueRangeError

TEXTS = [["b", "a", "b"], ["c", "b", "a"], ["d"]]


def test_words_are_cut_at_spaces_and_punctuation():
    assert words("Ça va ? L'été, «2024».") == ["ça", "va", "?", "l'été", ",", "«", "2024", "»", "."]
    assert words(" \n") == []


def test_the_most_frequent_words_come_first_and_equal_ones_in_order():
    v = Vocabulary.build(TEXTS)
    assert v.words == ("<pad>", "<unk>", "<s>", "</s>", "b", "a", "c", "d")
    assert (v["b"], v["zebra"]) == (4, UNKNOWN) and "d" in v and "zebra" not in v
    assert Vocabulary.build(reversed(TEXTS)).words == v.words


@pytest.mark.parametrize(("options", "kept"), [({"size": 6}, "ba"), ({"min_count": 2}, "ba"), ({"min_count": 3}, "b")])
def test_rare_words_become_unknown(options, kept):
    v = Vocabulary.build(TEXTS, **options)
    assert v.words[4:] == tuple(kept)
    assert v.decode(v.encode(["b", "d"])) == ["b", "<unk>"]


def test_special_symbols_in_a_text_keep_their_numbers():
    v = Vocabulary.build([["<s>", "a", "</s>"]])
    assert v.words == ("<pad>", "<unk>", "<s>", "</s>", "a")
    np.testing.assert_array_equal(v.encode(["<s>", "a", "</s>"]), [START, 4, END])


def test_decoding_ends_where_the_sentence_does():
    v = Vocabulary(["a", "b"])
    assert v.decode([START, 4, 5, END, 4]) == ["a", "b"]
    assert v.decode([4, 0, 0]) == ["a"]
    assert v.decode([]) == []


def test_encoding_gives_int64_even_for_no_words():
    assert Vocabulary(["a"]).encode([]).dtype == np.int64


@given(st.lists(st.lists(st.integers(1, 99), min_size=1, max_size=9), min_size=1, max_size=9), st.integers(0, 3))
def test_padding_goes_to_the_end_and_comes_off_again(rows, more):
    T = max(map(len, rows)) + more
    tokens = pad(rows, T)
    assert tokens.shape == (len(rows), T) and tokens.dtype == np.int64
    assert [row[:n].tolist() for row, n in zip(tokens, lengths(tokens), strict=True)] == rows


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: Vocabulary("ab"), DataError, "got one text; .*Alphabet.text. numbers its characters"),
        (lambda: Vocabulary(["a", "a"]), DataError, "'a' comes twice"),
        (lambda: Vocabulary(["<s>"]), DataError, "'<s>' comes twice"),
        (lambda: Vocabulary.build(["a b"]), DataError, "build: expected a list of words, got the text 'a b'"),
        (lambda: Vocabulary.build([]), DataError, "no word comes 1 times"),
        (lambda: Vocabulary.build(TEXTS, min_count=9), DataError, "no word comes 9 times"),
        (lambda: Vocabulary.build(TEXTS, size=4), ValueRangeError, "size > 4"),
        (lambda: Vocabulary.build(TEXTS, min_count=0), ValueRangeError, "min_count >= 1"),
        (lambda: Vocabulary(["a"]).encode("a"), DataError, "encode: expected a list of words"),
        (lambda: Vocabulary(["a"]).decode([5]), ValueRangeError, "numbers from 5 to 5, but the vocabulary has 0 to 4"),
        (lambda: Vocabulary(["a"]).decode([0.5]), DtypeError, "one row of integers"),
        (lambda: pad([]), DataError, "no sequences"),
        (lambda: pad([[4], []]), DataError, "sequence 1 is empty"),
        (lambda: pad([[4], [5, 5, 5]], 2), ShapeError, "sequence 1 has 3 tokens, more than length = 2"),
        (lambda: pad([[4, 0, 5]]), ValueRangeError, "sequence 0 holds 0"),
        (lambda: pad([[0.5]]), DtypeError, "sequence 0 must be one row of integers"),
    ],
)  # fmt: skip
def test_what_is_refused(call, error, message):
    with pytest.raises(error, match=message.replace("(", r"\(")):
        call()
