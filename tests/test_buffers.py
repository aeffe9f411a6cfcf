"""The memory of arrays that compiled kernels return: taken again when an array is gone, never shared by two that live."""

import os
import threading

import numpy as np
import pytest

import cnnlib as cl
from cnnlib.backends import cpu

kernels = pytest.importorskip("cnnlib.backends.cpu._kernels")
MIB = 1 << 20


@pytest.fixture(autouse=True)
def limit():
    before = cl.get_buffer_limit()
    cl.set_buffer_limit(64 * MIB)
    cl.release_buffers()
    yield
    cl.set_buffer_limit(before)


def result(value, n=100_000):
    """A new array of n times value, made by a kernel."""
    return kernels.relu_forward(np.full(n, value, np.float32))


def address(array):
    return array.__array_interface__["data"][0]


def test_an_array_takes_the_memory_of_one_that_is_gone():
    first = result(1)
    where = address(first)
    del first
    assert address(result(2)) == where


def test_memory_is_kept_as_long_as_a_view_needs_it():
    view = result(1)[::7]
    others = [result(2) for _ in range(4)]
    assert (view == 1).all() and all((other == 2).all() for other in others)


def test_arrays_that_live_never_share_memory():
    rng = np.random.default_rng(0)
    alive = []
    for step in range(400):
        if alive and rng.random() < 0.5:
            value, array = alive.pop(rng.integers(len(alive)))
            assert (array == value).all()
        else:
            alive.append((step, result(step, int(rng.integers(8_000, 60_000)))))
    assert all((array == value).all() for value, array in alive)


def test_arrays_are_aligned_and_own_their_memory():
    y = result(1)
    assert address(y) % 64 == 0 and y.flags.owndata and y.flags.writeable and y.base is None


def test_a_kept_array_may_be_resized():
    y = result(3)
    y.resize(200_000, refcheck=False)
    assert (y[:100_000] == 3).all() and (y[100_000:] == 0).all()
    y.resize(10, refcheck=False)
    assert (y == 3).all()


def test_what_is_kept_stays_within_the_limit():
    cl.set_buffer_limit(MIB)
    arrays = [result(1) for _ in range(10)]
    del arrays
    assert 0 < kernels.idle_buffer_bytes() <= MIB


def test_nothing_is_kept_at_limit_zero_or_after_release():
    array = result(1)
    cl.set_buffer_limit(0)
    del array
    assert kernels.idle_buffer_bytes() == 0
    cl.set_buffer_limit(MIB)
    del_me = result(1)
    del del_me
    assert kernels.idle_buffer_bytes() > 0
    cl.release_buffers()
    assert kernels.idle_buffer_bytes() == 0


def test_a_miss_gives_back_as_much_as_it_takes():
    """Keeping blocks must not raise the peak: while idle ones lie about, fresh ones replace them."""
    arrays = [result(1, 100_000) for _ in range(20)]
    del arrays
    idle = kernels.idle_buffer_bytes()
    large = result(1, 1_000_000)
    assert kernels.idle_buffer_bytes() <= idle - large.nbytes


def test_small_arrays_are_numpys_own():
    small = result(1, 100)
    del small
    assert kernels.idle_buffer_bytes() == 0


def test_other_arrays_keep_numpys_allocator():
    name = np._core.multiarray.get_handler_name
    assert name(result(1)) == "cnnlib" and name(np.empty(100_000)) == "default_allocator"


def test_threads_take_and_give_at_once():
    failures = []

    def work(value):
        for _ in range(200):
            array = result(value, 20_000 + value)
            if not (array == value).all():
                failures.append(value)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_a_forked_child_has_its_own():
    array = result(1)
    del array
    child = os.fork()
    if child == 0:
        os._exit(0 if (result(5) == 5).all() else 1)
    assert os.waitpid(child, 0)[1] == 0


@pytest.mark.parametrize("n", [-1, 1.5, "1", None])
def test_a_limit_is_a_whole_number(n):
    with pytest.raises(ValueError, match="set_buffer_limit: n_bytes must be a whole number >= 0, got"):
        cpu.set_buffer_limit(n)
