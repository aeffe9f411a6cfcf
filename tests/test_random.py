"""Philox against its published vectors; streams, moments, state."""

import math

import numpy as np
import pytest

import cnnlib as cl
from cnnlib import random as streams
from cnnlib.backends import available, kernel_set
from cnnlib.random import Key, next_key, normal, philox4x32_10, philox_words, uniform

BACKENDS = [name for name in ("reference", "cpu") if available()[name] is None]

# Random123's kat_vectors for philox4x32, 10 rounds: counter, key, result.
KNOWN = [
    ("00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
]


@pytest.fixture(autouse=True)
def same_random_numbers():
    cl.manual_seed(0)


def words(text):
    return [int(word, 16) for word in text.split()]


@pytest.mark.parametrize(("counter", "key", "result"), KNOWN)
def test_known_answers(counter, key, result):
    block = philox4x32_10(tuple(np.array([c], np.uint64) for c in words(counter)), tuple(words(key)))
    assert [int(word[0]) & 0xFFFFFFFF for word in block] == words(result)


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_kernel_gives_the_known_answer_that_a_key_can_reach(backend):
    assert kernel_set(backend).random_bits(Key(0, 0, 0), 4).tolist() == words(KNOWN[0][2])


def slow_word(key, i):
    """Word i of a sequence, in Python integers, from the paper's description."""
    c = [i // 4, 0, key.call, key.stream]
    k = [key.seed % 2**32, key.seed // 2**32]
    for _ in range(10):
        high0, low0 = divmod(0xD2511F53 * c[0], 2**32)
        high1, low1 = divmod(0xCD9E8D57 * c[2], 2**32)
        c = [high1 ^ c[1] ^ k[0], low1, high0 ^ c[3] ^ k[1], low0]
        k = [(k[0] + 0x9E3779B9) % 2**32, (k[1] + 0xBB67AE85) % 2**32]
    return c[i % 4]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("key", [Key(0, 0, 0), Key(2**64 - 1, 3, 2**32 - 1), Key(0x0123456789ABCDEF, 1, 77)], ids=str)
@pytest.mark.parametrize("n", [0, 1, 3, 4, 5, 31, 32, 33, 1023, 1024, 1025, 5000])
def test_words_equal_the_definition(backend, key, n):
    bits = kernel_set(backend).random_bits(key, n)
    assert bits.dtype == np.uint32 and bits.shape == (n,)
    for i in {0, 1, 2, n // 2, n - 2, n - 1}:
        if 0 <= i < n:
            assert bits[i] == slow_word(key, i)
    np.testing.assert_array_equal(bits, philox_words(key, n))


def test_a_longer_sequence_begins_with_the_shorter_one():
    key = Key(5, 1, 2)
    np.testing.assert_array_equal(philox_words(key, 1000)[:37], philox_words(key, 37))


# ---- moments, each within five standard errors


def test_uniform_numbers_are_uniform_and_never_0_or_1():
    n = 200_000
    u = uniform(Key(1, 0, 0), (n,))
    assert u.dtype == np.float64 and 0.0 < u.min() and u.max() < 1.0
    assert abs(u.mean() - 0.5) < 5 * math.sqrt(1 / 12 / n)
    assert abs(u.var() - 1 / 12) < 5 * math.sqrt(1 / 180 / n)
    counts = np.histogram(u, bins=64, range=(0, 1))[0]
    chi_square = ((counts - n / 64) ** 2 / (n / 64)).sum()
    assert chi_square < 63 + 5 * math.sqrt(2 * 63)


def test_normal_numbers_have_the_moments_of_a_normal_distribution():
    n = 200_001  # odd: one half of the last pair is left over
    z = normal(Key(1, 0, 1), (n,))
    assert z.shape == (n,)
    assert abs(z.mean()) < 5 / math.sqrt(n)
    assert abs(z.var() - 1) < 5 * math.sqrt(2 / n)
    assert abs((z**3).mean()) < 5 * math.sqrt(15 / n)
    assert abs((z**4).mean() - 3) < 5 * math.sqrt(96 / n)
    assert abs((z < 1).mean() - 0.841345) < 5 * math.sqrt(0.8413 * 0.1587 / n)


def test_every_bit_is_fair():
    n = 100_000
    bits = philox_words(Key(3, 1, 4), n)
    for position in range(32):
        assert abs(((bits >> position) & 1).mean() - 0.5) < 5 * 0.5 / math.sqrt(n)


# ---- keys and streams


def test_seeds_streams_and_calls_give_different_sequences():
    keys = [Key(0, 0, 0), Key(1, 0, 0), Key(2**32, 0, 0), Key(0, 1, 0), Key(0, 0, 1)]
    n = 10_000
    sequences = [uniform(key, (n,)) - 0.5 for key in keys]
    for i, a in enumerate(sequences):
        for b in sequences[:i]:
            assert abs((a * b).mean() * 12) < 5 / math.sqrt(n)


def test_each_draw_takes_the_next_call_of_its_stream_only():
    first = streams.next_key("dropout")
    other = streams.next_key("init")
    second = streams.next_key("dropout")
    assert (first.call, second.call, other.call) == (0, 1, 0)
    assert first.stream == second.stream != other.stream


def test_the_initial_weights_do_not_depend_on_how_often_dropout_was_drawn():
    cl.manual_seed(3)
    plain = cl.nn.Linear(4, 4).weight.data
    cl.manual_seed(3)
    cl.ops.dropout(cl.Tensor(np.ones(10, np.float32)))
    np.testing.assert_array_equal(cl.nn.Linear(4, 4).weight.data, plain)


def test_manual_seed_starts_anew():
    cl.manual_seed(7)
    keys = [streams.next_key("data") for _ in range(3)]
    cl.manual_seed(7)
    assert [streams.next_key("data") for _ in range(3)] == keys


def test_the_state_goes_back():
    cl.manual_seed(2**64 - 1)
    streams.next_key("sampling")
    state = streams.get_state()
    after = [streams.next_key("sampling"), streams.next_key("dropout")]
    cl.manual_seed(1)
    streams.set_state(state)
    assert [streams.next_key("sampling"), streams.next_key("dropout")] == after
    assert state == {"seed": 2**64 - 1, "init": 0, "dropout": 0, "data": 0, "sampling": 1}


@pytest.mark.parametrize("seed", [-1, 2**64, 1.5])
def test_a_seed_out_of_range_is_refused(seed):
    with pytest.raises(ValueError, match="seed must be a whole number in 0 … "):
        cl.manual_seed(seed)


def test_a_part_of_the_sequence_is_had_without_what_is_before_it():
    key = Key(5, 1, 2)
    np.testing.assert_array_equal(philox_words(key, 21, start=8), philox_words(key, 29)[8:])


def test_large_weights_are_those_drawn_at_once():
    """They are drawn in parts, which must not show."""
    cl.manual_seed(3)
    w = cl.nn.init.uniform_((3, 50_001), 0.5)
    cl.manual_seed(3)
    expected = ((2.0 * uniform(next_key("init"), w.shape) - 1.0) * 0.5).astype(np.float32)
    np.testing.assert_array_equal(w, expected)
