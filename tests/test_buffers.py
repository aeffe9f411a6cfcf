"""The memory of arrays that compiled kernels return: taken again when an array is gone, never shared by two that live."""

import os
import threading
from pathlib import Path

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
    for step in range(2000):
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


def addresses(arrays):
    return [(address(a), address(a) + a.nbytes) for a in arrays]


def test_what_is_beyond_the_limit_comes_from_elsewhere_and_works_alike():
    cl.set_buffer_limit(MIB)
    arrays = [result(i) for i in range(10)]  # 400 kB each
    assert all((array == i).all() for i, array in enumerate(arrays))
    arrays[7].resize(200_000, refcheck=False)
    assert (arrays[7][:100_000] == 7).all()
    del arrays
    assert 0 < kernels.idle_buffer_bytes() <= MIB


def test_neighbours_that_are_gone_make_room_for_a_larger_one():
    arrays = [result(1) for _ in range(20)]
    low, high = min(addresses(arrays))[0], max(addresses(arrays))[1]
    del arrays[::2], arrays[:]
    large = result(1, 1_900_000)
    assert low <= address(large) and address(large) + large.nbytes <= high


def test_the_smallest_gap_that_fits_is_taken():
    arrays = [result(i, n) for i, n in enumerate((300_000, 10_000, 100_000, 10_000, 200_000, 10_000))]
    where = address(arrays[2])
    arrays[0] = arrays[2] = arrays[4] = None
    assert address(result(1, 95_000)) == where


def test_nothing_is_kept_at_limit_zero():
    cl.set_buffer_limit(0)
    array = result(1)
    assert np._core.multiarray.get_handler_name(array) == "default_allocator"


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads /proc")
def test_release_gives_pages_back_to_the_system():
    def resident():
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    below, array, above = result(1), result(1, 8_000_000), result(2)
    full = resident()
    del array
    assert resident() > full - 8 * MIB
    cl.release_buffers()
    assert resident() < full - 24 * MIB
    assert (below == 1).all() and (above == 2).all() and (result(3, 8_000_000) == 3).all()


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
