"""The emulator of exercise 38: CUDA C gives what NumPy gives, and what a GPU would silently get wrong is an error."""

import sys
import types

import numpy as np
import pytest

from cnnlib.errors import DeviceError
from cnnlib.learn import cuda
from cnnlib.learn.emulator import KernelError, launch


def run(body, *arrays, parameters="float *x, float *y", grid=1, block=8):
    launch(f"__global__ void k({parameters}) {{ {body} }}", grid, block, *arrays)


def test_a_grid_of_blocks_covers_a_matrix():
    rng = np.random.default_rng(0)
    a, b, c = rng.standard_normal((5, 7)), rng.standard_normal((7, 6)), np.zeros((5, 6))
    source = """
    #define WIDTH 4   // of a block
    extern "C" __global__ void product(const float* __restrict__ a, const float *b, float *c, int M, int K, int N) {
        int row = blockIdx.y * blockDim.y + threadIdx.y, column = blockIdx.x * WIDTH + threadIdx.x;
        if (row >= M || column >= N) return;
        float sum = 0.0f;
        for (int k = 0; k < K; k++) sum += a[row * K + k] * b[k * N + column];
        c[row * N + column] = sum;
    }
    """
    launch(source, (2, 3), (4, 2), a, b, c, 5, 7, 6)
    np.testing.assert_allclose(c, a @ b, rtol=1e-12)


def test_tiles_in_shared_memory():
    a, c = np.arange(64.0).reshape(8, 8), np.zeros((8, 8))
    launch(
        """__global__ void transpose(const float *a, float *c, int n) {
            __shared__ float tile[4][5];
            int x = blockIdx.x * 4 + threadIdx.x, y = blockIdx.y * 4 + threadIdx.y;
            tile[threadIdx.y][threadIdx.x] = a[y * n + x];
            __syncthreads();
            x = blockIdx.y * 4 + threadIdx.x; y = blockIdx.x * 4 + threadIdx.y;
            c[y * n + x] = tile[threadIdx.x][threadIdx.y];
        }""",
        (2, 2), (4, 4), a, c, 8,
    )  # fmt: skip
    np.testing.assert_array_equal(c, a.T)


def test_c_arithmetic():
    y = np.zeros(12)
    run(
        """if (threadIdx.x > 0) return;
        int i = -7, j = 2; float f = 7; const float *p = y + 3;
        y[0] = i / j; y[1] = i % j; y[2] = f / j; y[3] = (int)2.9f; y[4] = (float)i / 2;
        y[5] = i > 0 ? 1 : j > 0 && !(i > 0) ? 2 : 3;
        y[6] = *p + p[1]; i = 5; i += 2.7f; y[7] = i; y[8] = 1 << 3 | 1; y[9] = fmaxf(expf(0.0f), .5f);
        i = 0; while (true) { i++; if (i == 3) continue; if (i > 5) break; y[10] += i; }
        for (i = 0, j = 0; i < 4; ++i, j += 2) { if (i == 1) continue; y[11] += j; }""",
        y, parameters="float *y", block=2,
    )  # fmt: skip
    np.testing.assert_array_equal(y, [-3, -1, 3.5, 2, -3.5, 2, 2 - 3.5, 7, 9, 1, 1 + 2 + 4 + 5, 0 + 4 + 6])


def test_atomic_add_counts_what_collides():
    y = np.zeros(3)
    run("atomicAdd(&y[threadIdx.x % 3], 1.0f); atomicAdd(y, 10);", y, parameters="float *y", grid=2, block=7)
    np.testing.assert_array_equal(y, [6 + 140, 4, 4])


@pytest.mark.parametrize(
    ("body", "error", "message"),
    [
        ("y[threadIdx.x + 1] = x[0];", IndexError, r"y\[8\] is outside of its 8 elements \(thread \(7, 0, 0\) of block"),
        ("y[threadIdx.x] = x[-1];", IndexError, r"x\[-1\] is outside"),
        ("y[x[0] * 0.5f] = 1;", IndexError, "must be a whole number"),
        ("__shared__ float s[8]; s[threadIdx.x] = x[threadIdx.x]; y[threadIdx.x] = s[7 - threadIdx.x];", RuntimeError, "race"),
        ("y[0] = x[threadIdx.x];", RuntimeError, "race"),
        ("if (threadIdx.x < 3) return; __syncthreads();", RuntimeError, "3 of 8 threads .* never reach a __syncthreads"),
        ("y[0] = 1 / (threadIdx.x - threadIdx.x);", ZeroDivisionError, "zero"),
        ("y[0] = z;", KernelError, "z is not declared"),
        ("y[0] = __shfl_down_sync(1, 2, 3);", KernelError, "does not know the function __shfl_down_sync"),
        ("y[0] = 1", KernelError, "expected ;"),
        ("if (x[0] > 1) { y[0] = 1;", KernelError, "} is missing"),
        ("float a = (y[0] = 1);", KernelError, "statement of its own"),
        ("int n = 8; __shared__ float s[n];", KernelError, "must be a constant"),
        ("extern __shared__ float s[];", KernelError, "extern"),
    ],
)
def test_mistakes_are_errors(body, error, message):
    with pytest.raises(error, match=message):
        run(body, np.arange(1.0, 9.0), np.zeros(8))


def test_memory_that_nobody_wrote_is_nan():
    y = np.zeros(8)
    run("__shared__ float s[8]; float a; y[threadIdx.x] = threadIdx.x < 4 ? s[0] : a;", np.ones(8), y)
    assert np.isnan(y).all()


@pytest.mark.parametrize(
    ("arguments", "block", "error", "message"),
    [
        ((np.ones(4),), 4, TypeError, "k takes 2 arguments, launch got 1"),
        ((np.ones(4), 3), 4, TypeError, "y is a pointer, launch got int"),
        ((np.ones(4), np.ones(4)), 2000, ValueError, "1 to 1024 threads"),
    ],
)
def test_a_launch_that_does_not_fit(arguments, block, error, message):
    with pytest.raises(error, match=message):
        run("y[0] = x[0];", *arguments, block=block)


def test_results_come_back_and_inputs_stay():
    x, y = np.arange(8.0)[::-1], np.zeros(8, np.float32)
    run("y[threadIdx.x] = 2 * x[threadIdx.x];", x, y)
    np.testing.assert_array_equal(y, 2 * x)
    x.flags.writeable = False
    run("y[threadIdx.x] = x[threadIdx.x];", x, y)
    np.testing.assert_array_equal(y, x)


def test_kernels_are_found_without_running_the_file():
    text = 'raise SystemExit\nA = """__global__ void f() {}"""\ndef g():\n    return "no kernel", "__global__ void h() {}"\n'
    assert cuda.kernels_in(text) == ["__global__ void f() {}", "__global__ void h() {}"]


@pytest.mark.skipif("no CUDA compiler" in cuda.compiled("__global__ void f() {}"), reason="no NVRTC and no nvcc")
def test_a_compiler_has_the_last_word():
    assert cuda.compiled("__global__ void f(float *x) { x[0] = INFINITY; }").endswith("compiled it")
    assert "line 2" in (said := cuda.compiled("__global__ void f(float *x) {\n x[0] = y; }")) and '"y" is undefined' in said


def test_a_verdict_says_what_was_done():
    from cnnlib.learn.checker import check_source
    from cnnlib.learn.exercise import find, solution_text

    verdict = check_source(find("cuda_kernel"), solution_text(find("cuda_kernel")).encode())
    assert verdict.passed and "in the emulator, thread by thread; " in verdict.sentence and "GPU" in verdict.sentence
    assert check_source(find("cuda_kernel"), find("cuda_kernel").starter.encode()).sentence.count("emulator") == 0


def test_on_a_gpu_a_launch_is_a_raw_kernel_in_float32(monkeypatch):
    """No GPU here: a stand-in for CuPy sees what it would be asked to do."""

    class Array(np.ndarray):
        def get(self):
            return np.asarray(self)

    class RawKernel:
        def __init__(self, source, name):
            assert 'extern "C" __global__ void twice' in source and name == "twice"

        def __call__(self, grid, block, arguments):
            assert (grid, block) == ((3,), (2, 2))
            x, y, n = arguments
            assert x.dtype == y.dtype == np.float32 and n == 12 and n.dtype == np.int32
            y[...] = 2 * x

    cupy = types.SimpleNamespace(asarray=lambda a, dtype: np.array(a, dtype).view(Array), RawKernel=RawKernel)
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    monkeypatch.setattr(cuda, "available", lambda: {"cuda": None})
    text = """
import sys
import types

import numpy as np
def f(x):
    y = np.zeros(x.shape)
    launch("__global__ void twice(const float *x, float *y, int n) { }", 3, (2, 2), x, y, x.size)
    return y
"""
    name, f = cuda.on_gpu(text, "f")
    assert name == "yours, on the GPU"
    x = np.arange(12.0)
    x.flags.writeable = False
    np.testing.assert_array_equal(f(x), 2 * x)


def test_without_a_gpu_the_reason_is_said(monkeypatch):
    monkeypatch.setattr(cuda, "available", lambda: {"cuda": "CuPy is not installed"})
    with pytest.raises(DeviceError, match="it does not run on a GPU: CuPy is not installed"):
        cuda.on_gpu("", "f")
    with pytest.raises(DeviceError, match="holds no __global__ void function"):
        cuda.launch("int x;", 1, 1)
