"""Write a CUDA kernel: softmax, one block for each row

A GPU has thousands of slow cores and one idea: everybody runs the same program on another number. You write what a single
thread does. You launch it as a grid of blocks of threads, and each thread finds out who it is:

    blockIdx.x  number of its block      threadIdx.x  its number within the block      blockDim.x  threads in a block

Threads of one block can talk, through __shared__ memory. But nobody says in which order they run. __syncthreads() is the
barrier: nobody goes on before all of the block are there. What was written before the barrier can be read after it; without
one you have a race, and a program that is right on Mondays.

The work: the softmax of each row of x (N, C),

    y[n, c] = exp(x[n, c] − m_n) / s_n,      m_n = max_c x[n, c],      s_n = Σ_c exp(x[n, c] − m_n)

A block per row, T threads in it. Thread t takes the columns t, t + T, t + 2T …, as C may be larger or smaller than T. The
maximum and the sum need everybody: each thread writes its own part into shared memory; after the barrier, thread 0 (or each
thread for itself, or half of the threads, then a quarter: the tree) puts the parts together.

Write softmax(x): the kernel as a string of CUDA C, and its launch. You need no GPU. launch is given, and runs your kernel
thread by thread in an emulator: slow, but it tells you what a GPU would not: an index outside of an array, a race, a barrier
that not all reach. Use float in C; the emulator computes it as double. If the CUDA compiler (NVRTC or nvcc) is here, a kernel
that passes is compiled, too, and where there is a GPU and CuPy it runs there: the verdict says which of these was done.

    launch(source, blocks, threads, x, y, C)        arrays for pointers, numbers for ints and floats; y holds the result

Source: lecture: GPU computing; Nickolls, Buck, Garland & Skadron, "Scalable parallel programming with CUDA", 2008.
"""

import numpy as np

from cnnlib.learn.cuda import never_launched, on_gpu, what_else
from cnnlib.learn.emulator import Dim3, KernelError, Pointer, Translator, functions_of_c, launch, run_block
from cnnlib.learn.exercise import Case, Exercise, Explanation, Fast, Mutant


def softmax(x):
    source = r"""
    extern "C" __global__ void softmax(const float *x, float *y, int C) {
        __shared__ float part[16];
        int t = threadIdx.x, T = blockDim.x, row = blockIdx.x * C;

        float m = -INFINITY;
        for (int c = t; c < C; c += T) m = fmaxf(m, x[row + c]);
        part[t] = m;
        __syncthreads();
        for (int i = 0; i < T; ++i) m = fmaxf(m, part[i]);
        __syncthreads();  // everybody has read the maxima: part is free again

        float s = 0.0f;
        for (int c = t; c < C; c += T) s += expf(x[row + c] - m);
        part[t] = s;
        __syncthreads();
        float total = 0.0f;
        for (int i = 0; i < T; ++i) total += part[i];

        for (int c = t; c < C; c += T) y[row + c] = expf(x[row + c] - m) / total;
    }
    """
    N, C = x.shape
    y = np.zeros_like(x)
    launch(source, N, 16, x, y, C)
    return y


def cases(rng):
    return [
        Case((rng.standard_normal((2, 16)),), ("as many columns as threads",)),
        Case((rng.standard_normal((2, 35)),), ("many columns",)),
        Case((rng.standard_normal((3, 5)),), ("few columns",)),
        Case((rng.standard_normal((1, 9)),), ("N = 1",)),
        Case((rng.standard_normal((1, 20)) * 10 + 800,), ("values near 800",)),
        Case((rng.standard_normal((2, 6)) - 900,), ("values near -900",)),
    ]


def rows(rng):
    """Few enough for the emulator."""
    return (rng.standard_normal((8, 256), dtype=np.float32),)


def softmax_of(x):
    e = np.exp(x - x.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


TREE = '''\
import numpy as np

KERNEL = """
#define T 32
extern "C" __global__ void softmax(const float* __restrict__ x, float* __restrict__ y, int columns)
{
    __shared__ float part[T];
    const int t = threadIdx.x;
    const float *from = x + blockIdx.x * columns;
    float *to = y + blockIdx.x * columns;

    float largest = -1e30f;
    for (int c = t; c < columns; c += T)
        if (from[c] > largest) { largest = from[c]; }
    part[t] = largest;
    for (int half = T / 2; half > 0; half /= 2) {
        __syncthreads();
        if (t < half) part[t] = part[t] > part[t + half] ? part[t] : part[t + half];
    }
    __syncthreads();
    largest = part[0];
    __syncthreads();

    float sum = 0;
    for (int c = t; c < columns; c += T) {
        to[c] = expf(from[c] - largest);
        sum += to[c];
    }
    part[t] = sum;
    for (int half = T / 2; half > 0; half >>= 1) {
        __syncthreads();
        if (t < half) part[t] += part[t + half];
    }
    __syncthreads();
    for (int c = t; c < columns; c += T) to[c] /= part[0];
}
"""


def softmax(x):
    y = np.empty(x.shape)
    launch(KERNEL, (x.shape[0], 1, 1), (32, 1, 1), x, y, x.shape[1])
    return y
'''

THREAD_PER_ROW = '''\
import numpy as np


def softmax(x):
    y = np.empty(x.shape)
    launch("""
        __global__ void rows(const float *x, float *y, int N, int C) {
            int n = blockIdx.x * blockDim.x + threadIdx.x;
            if (n >= N) return;
            float m = x[n * C], s = 0;
            int c = 1;
            while (c < C) { m = fmaxf(m, x[n * C + c]); c++; }
            for (c = 0; c < C; c++) s += expf(x[n * C + c] - m);
            for (c = 0; c < C; c++) y[n * C + c] = expf(x[n * C + c] - m) / s;
        }
    """, (x.shape[0] + 127) // 128, 128, x, y, x.shape[0], x.shape[1])
    return y
'''

EXERCISE = Exercise(
    number=38,
    name="cuda_kernel",
    topic="lecture: GPU computing",
    function=softmax,
    given=(Pointer, Dim3, KernelError, Translator, functions_of_c, run_block, launch),
    outputs=("y",),
    starter='''\
import numpy as np

SOURCE = r"""
extern "C" __global__ void softmax(const float *x, float *y, int C) {
    __shared__ float part[16];
    int t = threadIdx.x, T = blockDim.x, row = blockIdx.x * C;

    // 1. the maximum of this thread's columns t, t + T, ...; into part; barrier; the maximum of all parts
    // 2. another barrier: part will be used again
    // 3. the same with the sum of expf(x - maximum)
    // 4. write this thread's columns of y
}
"""


def softmax(x):
    """x (N, C) -> y (N, C), the softmax of every row; launch(source, blocks, threads, *arguments) is given."""
    ...
''',
    cases=cases,
    hints=(
        "Begin with one thread per block: launch(SOURCE, N, 1, x, y, C), and plain C loops over the row. That is right "
        "already. Then let 16 threads share the columns.",
        "Every thread keeps its own maximum in a variable, then part[t] = m; __syncthreads(); and all read all parts. "
        "Between the last read of the maxima and the first write of the sums there must be a barrier, too.",
        "for (int c = t; c < C; c += T) s += expf(x[row + c] - m);\n"
        "part[t] = s;  __syncthreads();  float total = 0.0f;\n"
        "for (int i = 0; i < T; ++i) total += part[i];",
    ),
    question="Your kernel reads x three times and computes each exponential twice. On a GPU that reads 1 TB/s, how long "
    "does the softmax of 4096 rows of 4096 numbers take at least, and what limits it: arithmetic or memory?",
    answer="Memory. 4096² floats are 67 MB; to read them once and write them once takes 134 MB / 1 TB/s = 0.13 ms. Three "
    "readings would cost 0.27 ms if none came from the cache; the exponentials are free beside that. Keep a row in "
    "registers or shared memory, or find "
    'maximum and sum in one pass (rescale the sum whenever the maximum grows: "online softmax"), and x is read once.',
    link="cnnlib/ops/activation.py",
    explanations=(
        Explanation(
            "columns forgotten",
            "each of your threads handles one column only: when C is larger than the block, the rest stays undone; let "
            "thread t take t, t + T, t + 2T …",
        ),
        Explanation(
            "maximum forgotten",
            "your exponentials overflow for large x, and vanish for very small ones: take the row's maximum off first.",
        ),
        Explanation(
            "own maximum",
            "each of your threads uses the maximum of its own columns: the exponentials of one row are then on different "
            "scales, take the maximum of all parts.",
        ),
        Explanation("own sum", "each of your threads divides by the sum of its own columns: add up the parts of all threads."),
        Explanation("row of the thread", "your row begins at the wrong place: row n begins at n·C, n being blockIdx.x."),
        Explanation("not divided", "your y are exponentials that nobody divided by their sum."),
        Explanation(
            "maximum starts at 0",
            "your maximum starts at 0: where all x are far below, all exponentials vanish; start at −INFINITY.",
        ),
        Explanation("last part missing", "your sum leaves out the last thread's part: the loop runs over all T parts."),
        Explanation("logarithm", "you return the logarithm of the softmax.", lambda x: np.log(softmax_of(x))),
        Explanation(
            "softmax of columns",
            "your softmax runs down the columns: each row is a distribution of its own.",
            lambda x: softmax_of(x.T).T,
        ),
    ),
    mutants=(
        Mutant("for (int c = t; c < C; c += T) y[", "for (int c = t; c < C && c < T; c += T) y[", "columns forgotten"),
        Mutant(
            "for (int i = 0; i < T; ++i) m = fmaxf(m, part[i]);\n        __syncthreads();",
            "m = 0.0f;\n        __syncthreads();",
            "maximum forgotten",
        ),
        Mutant("for (int i = 0; i < T; ++i) m = fmaxf(m, part[i]);", ";", "own maximum"),
        Mutant("for (int i = 0; i < T; ++i) total += part[i];", "total = s;", "own sum"),
        Mutant("row = blockIdx.x * C", "row = blockIdx.x", "row of the thread"),
        Mutant("expf(x[row + c] - m) / total", "expf(x[row + c] - m)", "not divided"),
        Mutant("float m = -INFINITY;", "float m = 0.0f;", "maximum starts at 0"),
        Mutant("i < T; ++i) total", "i < T - 1; ++i) total", "last part missing"),
        Mutant("part[t] = s;\n        __syncthreads();", "part[t] = s;", "raised"),
        Mutant("part[t] = m;\n        __syncthreads();", "part[t] = m;", "raised"),
        Mutant("__syncthreads();  // everybody", "// everybody", "raised"),
        Mutant("for (int c = t; c < C; c += T) m", "for (int c = t; c < C + T; c += T) m", "raised"),
        Mutant("i < T; ++i) total", "i <= T; ++i) total", "raised"),
        Mutant("launch(source, N, 16, x, y, C)", "launch(source, N, 32, x, y, C)", "raised"),
        Mutant("part[t] = s;\n        __syncthreads();", "part[t] = s;\n        if (t < C) __syncthreads();", "raised"),
        Mutant("float s = 0.0f;", "float s;", "nan"),
    ),
    equivalent={"softmax: np.zeros_like(x) -> np.ones_like(x)": "every element is written"},
    alternatives=(TREE, THREAD_PER_ROW),
    fast=Fast(rows, "softmax_forward", build=lambda text: on_gpu(text, "softmax")),
    afterwards=what_else,
    refuse=never_launched,
)
