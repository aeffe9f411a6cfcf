"""What each CUDA kernel promises beyond agreeing with the textbook: bits, orders, launches, values that live on the device."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from cnnlib.backends import REFERENCE, kernel_set
from cnnlib.random import Key, philox_words
from tests.cuda import emulator
from tests.kernel_calls import Calls, Sizes

KEY = Key(2**64 - 3, 3, 2**32 - 1)
rng = np.random.default_rng(5)


@pytest.fixture
def kernels(device):
    return kernel_set("cuda")


@pytest.fixture
def on(device):
    return device.asarray


# ---- memory


@pytest.mark.parametrize("place, dtype", [("end", "float32"), ("start", "float64")])
def test_nothing_outside_of_an_array_is_read_or_written(device, place, dtype, tmp_path):
    progress = tmp_path / "progress"
    progress.touch()
    done = subprocess.run(
        [sys.executable, "-m", "tests.cuda.guarded", str(progress), place, dtype, "4"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        cwd=Path(__file__).parents[2],
    )
    last = progress.read_text().strip()
    assert done.returncode == 0, f"exit status {done.returncode} in {last}\n{done.stderr[-2000:]}"
    assert int(done.stdout.split()[0]) > 1000


# ---- random words, bit for bit


@pytest.mark.parametrize("n", [1, 3, 4, 5, 1000, 5000])
@pytest.mark.parametrize("key", [KEY, Key(0, 0, 0), Key(2**33 + 7, 1, 5)])
def test_random_words_are_those_of_every_backend(kernels, key, n):
    words = kernels.random_bits(key, n).get()
    assert words.dtype == np.uint32
    np.testing.assert_array_equal(words, philox_words(key, n))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("p", [0.5, 0.1, 1 - 2**-40])
@pytest.mark.parametrize("n", [1, 7, 8, 9, 2048, 5001])
def test_a_dropout_mask_is_that_of_every_backend(kernels, on, n, p, dtype):
    x = rng.standard_normal(n).astype(dtype)
    y, keep = kernels.dropout_forward(on(x), p, KEY)
    y0, keep0 = REFERENCE.dropout_forward(x, p, KEY)
    np.testing.assert_array_equal(keep.get(), keep0)
    np.testing.assert_array_equal(y.get(), y0)
    np.testing.assert_array_equal(kernels.dropout_backward(on(x), keep, p).get(), REFERENCE.dropout_backward(x, keep0, p))


def test_the_number_of_a_draw_may_live_on_the_device(kernels, on):
    x, call = on(np.ones(100, np.float32)), on(np.int64([41]))
    key = KEY._replace(call=call)
    for number in (41, 42):
        call[0] = number
        there = KEY._replace(call=number)
        assert kernels.dropout_forward(x, 0.3, key)[1].tolist() == kernels.dropout_forward(x, 0.3, there)[1].tolist()
        assert kernels.random_bits(key, 9).tolist() == kernels.random_bits(there, 9).tolist()


# ---- steps of the optimisers, with values on the device


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_rate_and_number_of_a_step_may_live_on_the_device(kernels, on, dtype):
    """As numbers or as arrays of one element; a new value in the array is used without a new launch's arguments."""
    rate, number = on(np.float64([0.0])), on(np.int64([0]))
    arguments = {"lr": rate, "step": number}
    parameters = {
        "sgd_step": ("velocity", "lr", 0.9, 0.1, 0.01, True),
        "adagrad_step": ("square", "lr", 1e-8, 0.01),
        "rmsprop_step": ("square", "mean", "velocity", "lr", 0.9, 1e-8, 0.01, 0.9),
        "adam_step": ("mean", "square", "step", "lr", 0.9, 0.999, 1e-8, 0.01, True),
    }
    for name, layout in parameters.items():
        state = {k: abs(rng.standard_normal(50)).astype(dtype) for k in ("w", "dw", "velocity", "square", "mean")}
        twins = [{k: on(a) for k, a in state.items()} for _ in range(2)]
        for step, lr in ((1, 0.1), (2, 0.03), (1000, 0.003)):
            rate[0], number[0] = lr, step
            for own, scalars in zip(twins, (arguments, {"lr": lr, "step": step}), strict=True):
                given = [{**own, **scalars}.get(a, a) if isinstance(a, str) else a for a in ("w", "dw", *layout)]
                getattr(kernels, name)(*given)
        for k, a in state.items():
            tolerance = 1e-6 if dtype == "float32" else 1e-13
            np.testing.assert_allclose(twins[0][k].get(), twins[1][k].get(), rtol=tolerance, err_msg=f"{name}: {k}")
            assert k == "dw" or k not in (*layout, "w") or twins[0][k].get().tobytes() != a.tobytes()


@pytest.mark.parametrize("name", ["sgd_step", "adagrad_step", "rmsprop_step", "adam_step"])
def test_without_decay_an_infinite_parameter_leaves_no_trace(kernels, on, name):
    settings = {"sgd_step": (None, 0.1, 0.0, 0.0, 0.0, False), "adagrad_step": (on(np.ones(1)), 0.1, 1e-8, 0.0)}
    settings["rmsprop_step"] = on(np.ones(1)), None, None, 0.1, 0.9, 1e-8, 0.0, 0.0
    settings["adam_step"] = on(np.ones(1)), on(np.ones(1)), 3, 0.1, 0.9, 0.999, 1e-8, 0.0, False
    w = on(np.array([np.inf]))
    getattr(kernels, name)(w, on(np.ones(1)), *settings[name])
    assert w.tolist() == [np.inf] and all(np.isfinite(a.get()).all() for a in settings[name] if hasattr(a, "get"))


# ---- embedding: sums in the order of the indices


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("R, V, D", [(1, 1, 1), (700, 5, 3), (300, 256, 2), (1000, 70_000, 1), (600, 255, 40)])
def test_rows_of_one_index_add_up_in_their_order(kernels, on, R, V, D, dtype):
    indices = rng.choice(rng.integers(0, V, max(1, R // 3)), R)
    dy = (rng.standard_normal((R, D)) * 10.0 ** rng.integers(-6, 6, (R, 1))).astype(dtype)
    expected = np.zeros((V, D), dtype)
    for v, row in zip(indices, dy, strict=True):
        expected[v] += row
    np.testing.assert_array_equal(kernels.embedding_backward(on(dy), on(indices), V).get(), expected)


# ---- pooling: windows of one thread and of a warp


NASTY = np.array([np.nan, np.inf, -np.inf, 0.0, -0.0, 1.0, 1.0, 2.0])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("window", [(2, 2), (3, 1), (8, 8), (9, 40), (17, 17), (1, 64)])
def test_the_first_maximum_wins_and_nan_before_all(kernels, on, window, dtype):
    for choice in (NASTY, NASTY[2:], NASTY[2:3]):
        x = rng.choice(choice, (2, 2, 19, 67)).astype(dtype)
        geometry = window, (2, 3), (window[0] // 2, 0, 0, window[1] // 2)
        y, argmax = kernels.max_pool2d_forward(on(x), *geometry)
        y0, argmax0 = REFERENCE.max_pool2d_forward(x, *geometry)
        np.testing.assert_array_equal(y.get(), y0)
        np.testing.assert_array_equal(argmax.get(), argmax0)
        assert argmax.dtype == argmax0.dtype


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("window", [(8, 8), (19, 67), (3, 40)])
def test_large_windows_are_summed_by_a_warp(kernels, on, window, dtype):
    x, geometry = rng.standard_normal((2, 3, 19, 67)), (window, (5, 9), (1, 1, 1, 1))
    for name, settings in (("avg_pool2d_forward", (False,)), ("lp_pool2d_forward", (1.5,)), ("lp_pool2d_forward", (2.0,))):
        arguments = (*geometry, *settings) if name.startswith("avg") else (*settings, *geometry)
        got = getattr(kernels, name)(on(x.astype(dtype)), *arguments).get()
        allowed = 2e-6 if dtype == "float32" else 1e-14
        np.testing.assert_allclose(got, getattr(REFERENCE, name)(x, *arguments), rtol=allowed, atol=allowed)


# ---- NaN and infinity


NAMES = [n for f in ("relu", "softplus", "sigmoid", "tanh", "elu", "leaky_relu") for n in (f"{f}_forward", f"{f}_backward")]


@pytest.mark.parametrize("name", NAMES)
def test_nan_and_infinity_come_through_as_in_the_textbook(kernels, on, name):
    x = np.array([np.nan, np.inf, -np.inf, 1e30, -1e30, 90.0, -90.0, 0.0], np.float32)
    arguments = (x,) if name.endswith("forward") else (np.full_like(x, 2.0), x)
    setting = (0.3,) if name.startswith(("elu", "leaky")) else ()
    with np.errstate(all="ignore"):
        expected = getattr(REFERENCE, name)(*arguments, *setting)
    got = getattr(kernels, name)(*map(on, arguments), *setting).get()
    np.testing.assert_allclose(got, expected, rtol=1e-6)


@pytest.mark.parametrize("C", [5, 1500])
@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
def test_a_row_with_nan_is_nan_and_only_that(kernels, on, name, C):
    x = rng.standard_normal((3, C)).astype(np.float32)
    x[1, C // 2] = np.nan
    y = getattr(kernels, f"{name}_forward")(on(x)).get()
    assert np.isnan(y[1]).all() and np.isfinite(y[[0, 2]]).all()


# ---- launches


LAUNCHES = {"embedding_backward": 4}  # one pass of a sort, and the sums


@pytest.mark.parametrize("family", ["activation", "dropout", "loss", "embedding", "optim", "pool"])
def test_a_kernel_of_the_contract_is_one_launch(kernels, on, family):
    for call in Calls(0, "float32", Sizes()).of(family):
        on_device = call.with_arrays(on)
        emulator.launches.clear()
        on_device.on(kernels)
        assert len(emulator.launches) == LAUNCHES.get(call.kernel, 1), call
