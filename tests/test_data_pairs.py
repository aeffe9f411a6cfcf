"""Translation tasks: pairs as tokens, generated ones, and real ones out of message catalogues."""

import datetime
import gettext
import io
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cnnlib.data import catalogues
from cnnlib.data.catalogues import letters, messages, parallel, readable
from cnnlib.data.generated import WEEKDAYS, dates, in_words, number_words, written_date
from cnnlib.data.pairs import CHARACTERS, WORDS, Pairs, hold_out
from cnnlib.data.words import END, PAD, START
from cnnlib.errors import DataError, UnknownNameError, ValueRangeError

# ---- pairs


def small(**parts):
    texts = {"train": [("a b c", "xy"), ("b", "y")], "validation": [("a a", "x")], "test": [("z", "x")]} | parts
    return Pairs("small", texts, WORDS, CHARACTERS)


def test_a_pair_is_the_source_beside_the_writers_input_and_the_target():
    task = small()
    a, b, c = (task.source.vocabulary[w] for w in "abc")
    x, y = (task.target.vocabulary[w] for w in "xy")
    assert task.train.x.tolist() == [[a, b, c, START, x, y], [b, PAD, PAD, START, y, PAD]]
    assert task.train.y.tolist() == [[x, y, END], [y, END, PAD]]
    assert task.train.classes == task.target.vocabulary.words
    assert task.decode(task.train.y) == ["xy", "y"]


def test_words_of_the_parts_held_out_are_unknown():
    task = small()
    assert task.test.x[0, 0] == 1 and "z" not in task.source.vocabulary
    assert task.encode(["b q"]).tolist() == [[task.source.vocabulary["b"], 1, PAD]]


@pytest.mark.parametrize("text, count", [("", 0), ("a b c a", 4)])
def test_sentences_that_the_model_is_not_made_for_are_refused(text, count):
    with pytest.raises(DataError, match=f"the sentence '{text}' has {count} tokens, but the model is made for 1 to 3"):
        small().encode(["a", text])


def test_a_text_where_a_list_is_expected_is_refused():
    with pytest.raises(DataError, match=re.escape("expected a list of texts, got the text 'a b': write [text]")):
        small().encode("a b")


def test_an_empty_part_is_refused():
    with pytest.raises(DataError, match=r"small: expected pairs to train on, .*'test': 0"):
        small(test=[])


@given(st.lists(st.tuples(st.sampled_from("abcdefghijklmnop"), st.sampled_from("ABCDEFGHIJKLMNOP")), min_size=10, max_size=60))
def test_nothing_held_out_is_in_another_part(pairs):
    parts = hold_out(pairs, 0.2)
    assert parts["test"] == pairs[-round(0.2 * len(pairs)) :]
    for side in (0, 1):
        train, validation, test = ({p[side] for p in parts[part]} for part in ("train", "validation", "test"))
        assert not train & validation and not train & test and not validation & test


# ---- generated


@pytest.mark.parametrize("make", [dates, number_words])
def test_a_generated_task_is_a_function_of_its_seed_and_has_no_answer_twice(make):
    task, again, other = make(count=600), make(count=600), make(count=600, seed=1)
    assert task.texts == again.texts != other.texts
    assert [len(task.texts[p]) for p in ("train", "validation", "test")] == [480, 60, 60]
    assert len({target for pairs in task.texts.values() for _, target in pairs}) == 600


def test_dates_say_what_their_target_is():
    for day, form in zip(range(1, 32), list(range(8)) * 4, strict=False):
        date = datetime.date(1999, 3, day)
        text = written_date(date, form)
        if form == 7:
            assert text == date.strftime("%d.%m.%Y")
            continue
        numbers = re.findall(r"\d+", text)
        assert sorted(map(int, numbers)) == [day, 1999] and "Mar" in text
        assert ("day" not in text) or text.startswith(WEEKDAYS[date.weekday()])
    ends = [written_date(datetime.date(2000, 1, day), 6)[4:-6] for day in (1, 2, 3, 4, 11, 12, 13, 21, 22, 23, 30, 31)]
    assert ends == "1st 2nd 3rd 4th 11th 12th 13th 21st 22nd 23rd 30th 31st".split()


def test_all_forms_and_lengths_come_up():
    assert {len(target) for _, target in number_words(count=2000).texts["test"]} >= {2, 3, 4, 5, 6}
    forms = {re.sub(r"[A-Z][a-z]+", "A", re.sub(r"\d+", "1", text)) for text, _ in dates(count=500).texts["train"]}
    assert (
        len({form.replace("1st", "1th").replace("1nd", "1th").replace("1rd", "1th") for form in forms}) == 7
    )  # two look alike


TEENS = "ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen"
VALUES = {word: n for n, word in enumerate(f"zero one two three four five six seven eight nine {TEENS}".split())}
VALUES |= {word: n for n, word in zip(range(20, 100, 10), "twenty thirty forty fifty sixty seventy eighty ninety".split())}


@given(st.integers(0, 999_999))
def test_number_words_add_up_to_the_number(n):
    total = part = 0
    for word in in_words(n).split():
        if word == "hundred":
            part *= 100
        elif word == "thousand":
            total, part = 1000 * part, 0
        elif word != "and":
            part += VALUES[word]
    assert total + part == n


@pytest.mark.parametrize("make, count", [(dates, 9), (dates, 80_000), (number_words, 100_001), (number_words, 1.5)])
def test_a_count_that_cannot_be_is_refused(make, count):
    with pytest.raises(ValueRangeError, match=r"count must be a whole number from 10 to [\d,]+, got"):
        make(count=count)


# ---- catalogues


def catalogue(pairs, order="little"):
    """A .mo file, as the gettext manual describes it."""
    pairs = sorted([("", "Content-Type: text/plain; charset=UTF-8\n"), *pairs])
    number = lambda n: n.to_bytes(4, order)  # noqa: E731
    n = len(pairs)
    start = 28 + 16 * n
    tables, texts = [], b""
    for side in (0, 1):
        for pair in pairs:
            text = pair[side].encode()
            tables += [number(len(text)), number(start + len(texts))]
            texts += text + b"\0"
    head = [number(v) for v in (0x950412DE, 0, n, 28, 28 + 8 * n, 0, 0)]
    return b"".join([*head, *tables, texts])


MESSAGES = [("Open file", "Ouvrir"), ("menu\4File", "Fichier"), ("one\0many", "un\0des"), ("not translated", "")]


@pytest.mark.parametrize("order", ["little", "big"])
def test_messages_are_those_of_the_standard_library(order):
    content = catalogue(MESSAGES, order)
    found = dict(messages(content, "x.mo"))
    assert found == {"File": "Fichier", "Open file": "Ouvrir", "one": "un"}
    reference = gettext.GNUTranslations(io.BytesIO(content))
    assert found["Open file"] == reference.gettext("Open file")
    assert found["File"] == reference.pgettext("menu", "File")
    assert found["one"] == reference.ngettext("one", "many", 1)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"PK\3\4 something", "x.mo: no message catalogue: it begins with b'PK"),
        (b"", "no message catalogue"),
        (catalogue(MESSAGES)[:40], "breaks off at byte 40, in its tables"),
        (catalogue(MESSAGES)[:-20], r"breaks off at byte \d+: a text reaches to \d+"),
        (catalogue(MESSAGES).replace(b"Ouvrir", b"\xffuvrir"), r"the text at byte \d+ is not UTF-8"),
    ],
)
def test_damaged_catalogues_are_refused(content, message):
    with pytest.raises(DataError, match=message):
        messages(content, "x.mo")


NUMBERS = [in_words(n) for n in range(300)]
SENTENCES = [(f"The {word}.", f"Le {word[::-1]} l’a !") for word in NUMBERS]


def put(folder, pairs, language="fr"):
    file = folder / "parallel" / "program" / language / "LC_MESSAGES" / "program.mo"
    file.parent.mkdir(parents=True)
    file.write_bytes(catalogue(pairs))


def test_real_pairs_are_clean_short_and_in_one_part_only(tmp_path, monkeypatch):
    monkeypatch.setenv("CNNLIB_DATA", str(tmp_path))
    other = [
        ("<b>Bold</b>", "<b>Gras</b>"), ("%d files", "%d fichiers"), ("Wesnoth", "Wesnoth"), ("12", "12 !"),
        ("the ONE!", "le eno"),        ("one two three four five six seven eight nine ten eleven", "trop"),
    ]  # fmt: skip
    put(tmp_path, SENTENCES + other)
    task = parallel("fr")
    pairs = [pair for part in task.texts.values() for pair in part]
    assert len(pairs) == len(SENTENCES)
    assert sum(letters(source) == "the one" for source, _ in pairs) == 1
    assert {("the two .", "le owt l' a !")} <= set(pairs)
    assert task.decode(task.train.y[:1])[0].startswith("le ") and "l'a!" in task.decode(task.train.y[:1])[0]
    assert parallel("fr").texts == task.texts
    assert 100 < len([pair for part in parallel("fr", max_words=8).texts.values() for pair in part]) < len(SENTENCES)


def test_near_duplicates_are_not_held_out(tmp_path, monkeypatch):
    """Two sentences with one translation, or that differ in punctuation only, never are in two parts."""
    monkeypatch.setenv("CNNLIB_DATA", str(tmp_path))
    put(tmp_path, [(f"{a} {b}{mark}", f"{a[::-1]}{mark}") for a in NUMBERS[:40] for b in ("x", "y", "z") for mark in ".!"])
    parts = parallel("fr").texts
    for side in (0, 1):
        train, validation, test = ({letters(p[side]) for p in parts[part]} for part in ("train", "validation", "test"))
        assert test and not train & test and not train & validation and not validation & test


def test_a_sentence_of_a_user_is_cut_as_those_of_the_catalogues():
    assert catalogues.WORDS.apart("The l’eau, PLEASE!") == ["the", "l'", "eau", ",", "please", "!"]
    assert readable(["¿", "qué", "(", "agua", ")", "?"]) == "¿qué (agua)?"


def test_missing_catalogues_say_what_to_do(tmp_path, monkeypatch):
    monkeypatch.delenv("CNNLIB_DATA", raising=False)
    with pytest.raises(DataError, match=r"CNNLIB_DATA is not set.*number_words"):
        parallel()
    monkeypatch.setenv("CNNLIB_DATA", str(tmp_path))
    with pytest.raises(DataError, match=r"no catalogue fr/LC_MESSAGES/\*.mo below .*parallel: put the language packages"):
        parallel()
    put(tmp_path, SENTENCES[:50])
    with pytest.raises(DataError, match="only 50 sentences of at most 10 words"):
        parallel()
    with pytest.raises(UnknownNameError, match="unknown language of parallel 'fra': did you mean 'fr'"):
        parallel("fra")


def test_labels_of_the_task_are_within_its_classes():
    task = number_words(count=100)
    assert task.train.y.max() < len(task.train.classes) and np.isin(END, task.train.y)
