"""Beam search on small models made by hand, against search by hand and by trying everything."""

import itertools
import math

import numpy as np
import pytest

from cnnlib.data.words import END, PAD, START, UNKNOWN
from cnnlib.errors import NonFiniteError, ShapeError, ValueRangeError
from cnnlib.models.beam_search import beam_search

A, B, C = 4, 5, 6
V = 7


def model(table):
    """A model by a table: beginning (a tuple of words) -> {word: p}. It carries along what was said, one row per sentence."""

    def step(last, state):
        (said,) = state
        said = np.concatenate([said, last[:, None]], axis=1)
        p = np.zeros((len(last), V))
        for row, words in zip(p, said[:, 1:].tolist(), strict=True):  # without <s>
            for word, share in table(tuple(words)).items():
                row[word] = share
        with np.errstate(divide="ignore"):
            return np.log(p), (said,)

    return step


def nothing_said(sentences=1):
    return (np.zeros((sentences, 0), np.int64),)


def search(table, beam, length):
    tokens, scores = beam_search(model(table), nothing_said(), 1, beam, length)
    return [row[: int((row != PAD).sum())].tolist() for row in tokens[0]], scores[0]


def corner(said):
    """A is the likelier first word, but nothing likely follows it; B is followed by one word for certain."""
    return {
        (): {A: 0.6, B: 0.4},
        (A,): {A: 0.4, B: 0.3, C: 0.3},
        (B,): {C: 1.0},
    }.get(said, {END: 1.0})


def test_beam_search_gets_out_of_the_corner_that_greedy_search_runs_into():
    (greedy,), score = search(corner, 1, 5)
    assert greedy == [A, A, END] and score[0] == pytest.approx(math.log(0.6 * 0.4) / 3)
    found, scores = search(corner, 2, 5)
    assert found[0] == [B, C, END] and scores[0] == pytest.approx(math.log(0.4) / 3)


def some_model(seed):
    """Random probabilities after every beginning, a function of it."""
    words = [A, B, C, END]

    def table(said):
        p = np.random.default_rng([seed, *said]).dirichlet(np.ones(len(words)))
        return dict(zip(words, p, strict=True))

    return table


def everything(table, length):
    """All sentences of at most ``length`` words, ``</s>`` included, by their score."""
    found = []
    for n in range(length):
        for words in itertools.product([A, B, C], repeat=n):
            sentence = (*words, END)
            score = sum(math.log(table(sentence[:t])[sentence[t]]) for t in range(n + 1)) / (n + 1)
            found.append((score, list(sentence)))
    return sorted(found, reverse=True)


@pytest.mark.parametrize("seed", range(5))
def test_a_large_beam_finds_what_trying_everything_finds(seed):
    table, length = some_model(seed), 4
    best = everything(table, length)  # 1 + 3 + 9 + 27 sentences
    found, scores = search(table, 50, length)
    assert found[:40] == [sentence for _, sentence in best]
    np.testing.assert_allclose(scores[:40], [score for score, _ in best], rtol=1e-12)
    assert np.isneginf(scores[40:]).all()  # there are no more sentences


@pytest.mark.parametrize("seed", range(5))
def test_beam_1_is_greedy_search(seed):
    table, said = some_model(seed), []
    while END not in said and len(said) < 5:
        p = table(tuple(said))
        said.append(max(p, key=p.get))
    (found,), _ = search(table, 1, 6)
    assert found == (said if END in said else [*said, END])


def test_sentences_side_by_side_are_searched_as_each_alone():
    """Each has a model of its own, by the first number in its state."""
    tables = [some_model(1), corner, some_model(2)]

    def step(last, state):
        log_p, rows = [], []
        for word, words in zip(last, state[0], strict=True):
            p, (new,) = model(tables[words[0]])(np.array([word]), (words[None, 1:],))
            log_p.append(p[0])
            rows.append(np.concatenate([words[:1], new[0]]))
        return np.array(log_p), (np.array(rows),)

    tokens, scores = beam_search(step, (np.arange(3)[:, None],), 3, 3, 5)
    for b, table in enumerate(tables):
        alone = beam_search(model(table), nothing_said(), 1, 3, 5)
        np.testing.assert_array_equal(tokens[b], alone[0][0])
        np.testing.assert_array_equal(scores[b], alone[1][0])


def test_a_sentence_ends_at_the_last_place_whatever_the_model_says():
    tokens, scores = beam_search(model(lambda said: {A: 0.9, END: 0.1}), nothing_said(), 1, 1, 3)
    assert tokens.tolist() == [[[A, A, END]]]
    assert scores[0, 0] == pytest.approx(math.log(0.9 * 0.9 * 0.1) / 3)


def test_special_symbols_are_never_said():
    tokens, _ = beam_search(
        model(lambda said: {PAD: 0.4, UNKNOWN: 0.2, START: 0.2, A: 0.15, END: 0.05}), nothing_said(), 1, 2, 3
    )
    assert np.isin(tokens, [A, END]).sum() == (tokens != PAD).sum() and not (tokens[:, :, 0] == PAD).any()


@pytest.mark.parametrize("beam", [0, -1, 1.5])
def test_a_beam_below_1_is_refused(beam):
    with pytest.raises(ValueRangeError, match="beam_search: beam must be a whole number >= 1, got"):
        search(corner, beam, 3)


def test_a_length_below_1_is_refused():
    with pytest.raises(ValueRangeError, match="beam_search: length must be a whole number >= 1, got 0"):
        search(corner, 1, 0)


BLEW_UP = r"^beam_search: the network's scores are not finite: its training blew up. Use an earlier checkpoint.$"


@pytest.mark.parametrize("beam", [1, 2])
@pytest.mark.parametrize("spoilt", [{A: np.nan}, {PAD: np.nan}, {A: np.inf}, dict.fromkeys(range(V), -np.inf)])
def test_scores_that_are_not_finite_are_refused_at_whatever_word_they_come(beam, spoilt):
    def step(last, state):
        (said,) = state
        log_p = np.full((len(last), V), -math.log(V))
        log_p[:, END] = -50.0
        if said.shape[1] == 2:  # at the third word
            for word, score in spoilt.items():
                log_p[-1, word] = score
        return log_p, (np.concatenate([said, last[:, None]], axis=1),)

    assert beam_search(step, nothing_said(2), 2, beam, 2)[0].shape == (2, beam, 2)
    with pytest.raises(NonFiniteError, match=BLEW_UP):
        beam_search(step, nothing_said(2), 2, beam, 5)


@pytest.mark.parametrize("beam", [1, 2, 4])
def test_words_may_be_forbidden_and_nothing_need_follow_an_end_or_a_beginning_that_cannot_be_said(beam):
    """Only A may be said, then </s>: there is one sentence, however many are searched for."""
    found, scores = search(lambda said: {(): {A: 1.0}, (A,): {END: 1.0}}.get(said, {}), beam, 4)
    assert found[0] == [A, END] and scores[0] == 0.0 and np.isneginf(scores[1:]).all()


@pytest.mark.parametrize("shape", [(7,), (2, V), (1, 6, V), (7, V)])
def test_a_step_whose_scores_have_another_shape_is_told_the_shape(shape):
    with pytest.raises(ShapeError, match=r"step must return ln p of the shape \(R, V\), R = .* = 2 · 3 = 6 rows") as told:
        beam_search(lambda last, state: (np.zeros(shape), state), (), 2, 3, 4)
    assert str(told.value).endswith(f"got {shape}.")
