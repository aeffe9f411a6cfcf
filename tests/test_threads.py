"""Threads, processes and floating-point states around the compiled kernels: none of them changes a bit of a result."""

import functools
import itertools
import multiprocessing
import os
import re
import select
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

import cnnlib as cl
from cnnlib.backends import cpu, kernel_set
from tests import floating_point
from tests.kernel_calls import LARGE, Call, Calls, Sizes, random_sizes

if not cpu.available():
    pytest.skip(f"the compiled kernels were not built: {cpu.why_not()}", allow_module_level=True)

COMPILED = kernel_set("cpu")
ISAS = cpu.available_isas()
DTYPES = ("float32", "float64")
KERNELS = sorted({call.kernel for call in Calls(0, "float32", Sizes())})
PATIENCE = 60  # seconds until what hangs is a failure

each_isa = pytest.mark.parametrize("isa", ISAS)
each_dtype = pytest.mark.parametrize("dtype", DTYPES)
needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="no os.fork here")
forks = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")


@pytest.fixture
def finely():
    """Threads share even the smallest work."""
    cpu._kernels.split_finely(True)
    yield
    cpu._kernels.split_finely(False)


@functools.cache
def large_calls(dtype):
    sums = [("linear_backward_bias", (7000, 600)), ("conv2d_backward_bias", (8, 64, 80, 80))]  # much to read, little to do
    rng = np.random.default_rng(30)
    return [
        *(call for sizes in LARGE for call in Calls(31, dtype, sizes)),
        *(Call(name, (rng.standard_normal(shape).astype(dtype),)) for name, shape in sums),
    ]


@functools.cache
def small_calls(dtype, scale=1.0, count=25):
    rng = np.random.default_rng(32)
    return [call for i in range(count) for call in Calls(i, dtype, random_sizes(rng), scale)]


@functools.cache
def mixed_calls():
    """A few hundred calls of all kernels, large and small, of both dtypes."""
    return [call for dtype in DTYPES for call in [*Calls(33, dtype, LARGE[0]), *small_calls(dtype)[:230]]]


def bits_of(calls):
    return [call.bits_on(COMPILED) for call in calls]


def differing(calls, expected, limit=3):
    """The calls that now give other bits than ``expected``, as text."""
    wrong = [str(call) for call, before in zip(calls, expected, strict=True) if call.bits_on(COMPILED) != before]
    return wrong[:limit]


# ---- the number of threads


def check_bits_of_one_to_four_threads(calls, isa):
    cpu.set_isa(isa)
    cl.set_num_threads(1)
    expected = bits_of(calls)
    for threads in (1, 2, 3, 4):
        cl.set_num_threads(threads)
        assert not differing(calls, expected), f"{isa}, {threads} threads"


@each_isa
@each_dtype
def test_one_to_four_threads_give_equal_bits(isa, dtype):
    check_bits_of_one_to_four_threads(large_calls(dtype), isa)


@each_isa
@each_dtype
def test_wherever_the_work_is_cut_the_bits_are_equal(isa, dtype, finely):
    whole_planes = [  # 53 of them: a share is no whole number of vectors
        Call(
            "avg_pool2d_forward",
            (np.random.default_rng(n).standard_normal((1, 53, n, n)).astype(dtype), (n, n), (n, n), (0,) * 4, True),
        )
        for n in (2, 3, 7)
    ]
    check_bits_of_one_to_four_threads([*small_calls(dtype), *whole_planes], isa)


@each_isa
@each_dtype
def test_few_rows_and_several_blocks_of_k_give_equal_bits(isa, dtype):
    """Threads that share few rows make their panels lower, whether one of them does all the work or not."""
    rng = np.random.default_rng(34)
    shapes = [(M, K, N) for M in (5, 6, 14) for K in (513, 1100) for N in (17, 33, 70)]
    draws = [(rng.standard_normal((M, K)).astype(dtype), rng.standard_normal((K, N)).astype(dtype)) for M, K, N in shapes]
    check_bits_of_one_to_four_threads([Call("gemm", (a, b, False, False)) for a, b in draws], isa)


def in_a_forked_child(function):
    """What ``function`` returns, 0 ... 99, there; a child that does not end is killed, and a failure."""
    reader, writer = os.pipe()  # the child's end closes when the child ends, however it ends
    pid = os.fork()
    if not pid:
        code = 100
        try:
            code = int(function())
        finally:
            os._exit(code)
    os.close(writer)
    ended = select.select([reader], [], [], PATIENCE)[0]
    os.close(reader)
    if not ended:
        os.kill(pid, signal.SIGKILL)
    status = os.waitpid(pid, 0)[1]
    assert ended, "the forked child hung"
    return os.waitstatus_to_exitcode(status)


@pytest.mark.skipif(sys.platform != "linux", reason="counts the threads in /proc")
@forks
@pytest.mark.parametrize("name", KERNELS)
def test_these_calls_do_use_the_pool(name):
    """Otherwise the comparison above says nothing. A forked child starts with one thread."""
    calls = [call for call in large_calls("float32") if call.kernel == name]

    def threads_after():
        bits_of(calls)
        return len(os.listdir("/proc/self/task"))

    cl.set_num_threads(4)
    assert in_a_forked_child(threads_after) > 1


@pytest.mark.parametrize("n", [0, -1, -(2**31)])
def test_less_than_one_thread_is_refused(n):
    before = cl.get_num_threads()
    for function in (cl.set_num_threads, cpu.set_num_threads):
        with pytest.raises(ValueError, match=f"set_num_threads: n must be at least 1, got {n}"):
            function(n)
    assert cl.get_num_threads() == before


def test_more_threads_than_the_pool_has_room_for():
    calls = mixed_calls()[:40]
    cl.set_num_threads(1)
    expected = bits_of(calls)
    cl.set_num_threads(2**31 - 1)
    assert cl.get_num_threads() >= 64
    cl.set_num_threads(33)
    assert not differing(calls, expected)


HEADER = Path(__file__).parent.parent / "csrc" / "kernels.h"


@pytest.mark.skipif(not HEADER.exists(), reason="not in a checkout")
def test_the_driver_of_the_thread_sanitizer_calls_every_kernel():
    driver = (Path(__file__).parent / "csrc" / "threads_driver.c").read_text()
    kernels = re.findall(r"\(\*(\w+)\)\(", HEADER.read_text().split("typedef int (*elementwise_kernel)")[0])
    kernels += re.findall(r"\(\*(\w+)\)\(", HEADER.read_text().split("tanh_backward;")[1])
    kernels += re.findall(r"\w+", " ".join(re.findall(r"elementwise_kernel (\w.*);", HEADER.read_text())))
    assert len(kernels) > 50
    assert not [name for name in kernels if f"->{name}" not in driver]


# ---- several Python threads at once


def all_at_once(*functions):
    """Runs the functions in threads of their own, which begin together; raises what they raise, or when they hang."""
    together, errors = threading.Barrier(len(functions), timeout=PATIENCE), []

    def run(function):
        try:
            together.wait()
            function()
        except BaseException as error:
            errors.append(error)

    workers = [threading.Thread(target=run, args=(function,), daemon=True) for function in functions]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(PATIENCE)
        assert not worker.is_alive(), "a thread hung"
    for error in errors:
        raise error


def shuffled(calls, expected, number):
    order = np.random.default_rng(number).permutation(len(calls))
    return [calls[i] for i in order], [expected[i] for i in order]


@each_isa
def test_calls_from_several_threads_at_once(isa):
    """Each in another order, while one more thread changes the number of threads all the time."""
    cpu.set_isa(isa)
    calls = mixed_calls()
    cl.set_num_threads(1)
    expected = bits_of(calls)
    cl.set_num_threads(2)
    running = threading.Event()
    running.set()

    def compute(number):
        own_calls, own_expected = shuffled(calls, expected, number)
        assert not differing(own_calls, own_expected)

    def change():
        for threads in itertools.cycle((1, 4, 2, 7, 3)):
            cl.set_num_threads(threads)
            if not running.is_set():
                return

    changing = threading.Thread(target=change, daemon=True)
    changing.start()
    try:
        all_at_once(*(functools.partial(compute, number) for number in range(4)))
    finally:
        running.clear()
        changing.join(PATIENCE)


def test_the_number_of_threads_changes_between_and_never_within_calls(finely):
    """A kernel sizes its scratch memory by that number, then asks for that many workers."""
    calls = [call for call in small_calls("float32") if call.kernel.startswith(("gemm", "conv2d", "layer_norm", "max_pool2d"))]
    cl.set_num_threads(1)
    expected = bits_of(calls)
    running = threading.Event()
    running.set()

    def change():
        for threads in itertools.cycle((1, 16)):
            cl.set_num_threads(threads)
            if not running.is_set():
                return

    changing = threading.Thread(target=change, daemon=True)
    changing.start()
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for _ in range(5):
            assert not differing(calls, expected)
    finally:
        sys.setswitchinterval(interval)
        running.clear()
        changing.join(PATIENCE)


def test_a_call_that_is_refused_leaves_the_others_alone():
    calls = mixed_calls()[:60]
    expected = bits_of(calls)
    x = np.ones((64, 64), np.float32)

    def fail():
        for _ in range(200):
            with pytest.raises(ValueError, match="gemm"):
                COMPILED.gemm(x, x.T[::2])
            with pytest.raises(TypeError, match="gemm"):
                COMPILED.gemm(x, x.astype(np.float64))

    all_at_once(fail, lambda: differing(calls, expected) and pytest.fail("other bits"), fail)
    assert not differing(calls, expected)


STARVING = """
import resource
import numpy as np
import cnnlib as cl
from cnnlib.backends import kernel_set

x = np.random.default_rng(0).standard_normal((6, 1, 1024, 1024)).astype(np.float32)
cl.set_num_threads(6)  # 72 MB of scratch memory, more than is kept for the next call
contrast = lambda: [y.tobytes() for y in kernel_set("cpu").local_contrast_norm_forward(x, 2, 1.0, 1e-3)]
expected = contrast()
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
messages = set()
for room in range(40 << 20, 240 << 20, 8 << 20):
    resource.setrlimit(resource.RLIMIT_AS, (used + room, resource.RLIM_INFINITY))
    try:
        assert contrast() == expected, "other results with little memory"
        break
    except MemoryError as error:
        messages.add("scratch" in str(error))
resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
assert contrast() == expected, "other results afterwards"
assert True in messages, "memory sufficed all the time"
"""


@pytest.mark.skipif(sys.platform != "linux", reason="needs RLIMIT_AS")
def test_a_kernel_that_finds_no_memory_says_so_and_the_next_one_computes():
    """In a process of its own: what earlier tests gave back would suffice here."""
    run = subprocess.run([sys.executable, "-c", STARVING], capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert run.returncode == 0, run.stderr


# ---- processes


def three_kernels():
    return [call for call in mixed_calls() if call.kernel in ("gemm", "conv2d_forward", "tanh_forward", "layer_norm_backward")]


@needs_fork
@forks
@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("meanwhile", ["the parent is idle", "the parent's pool is at work"])
def test_a_forked_child_computes(meanwhile, threads):
    cl.set_num_threads(3)
    calls = three_kernels()
    expected = bits_of(calls)  # and the pool has run
    stop, started = threading.Event(), threading.Event()

    def work():
        while not stop.is_set():
            bits_of(calls[:6])
            started.set()

    def child():
        cl.set_num_threads(threads)
        grandchild = in_a_forked_child(lambda: bool(differing(calls, expected)))
        return bool(differing(calls, expected)) + 2 * grandchild

    other = threading.Thread(target=work, daemon=True)
    if meanwhile != "the parent is idle":
        other.start()
        assert started.wait(PATIENCE)
    try:
        for _ in range(4):
            assert in_a_forked_child(child) == 0
    finally:
        stop.set()
    if other.ident:
        other.join(PATIENCE)
        assert not other.is_alive()
    assert not differing(calls, expected)


def some_bits(first):
    """In a process of multiprocessing."""
    cl.set_num_threads(2)
    return bits_of(three_kernels()[first::7])


@needs_fork
@forks
@pytest.mark.parametrize("method", ["fork", "forkserver"])
def test_processes_of_multiprocessing_compute(method):
    cl.set_num_threads(2)
    expected = [some_bits(seed) for seed in range(4)]
    with multiprocessing.get_context(method).Pool(2) as pool:
        assert pool.map_async(some_bits, range(4)).get(PATIENCE) == expected


# ---- the floating-point state of the caller

FP = pytest.mark.skipif(not floating_point.supported(), reason="knows the fenv_t of glibc only")
SCALES = {"float32": (1.0, 1e-20, 1e-39), "float64": (1.0, 1e-155, 1e-309)}  # products, or inputs themselves, are denormal


@FP
def test_the_states_of_this_test_do_change_results():
    x, y = np.random.default_rng(0).standard_normal((2, 100)).astype(np.float32)
    x[0] = y[0] = 1e-20
    normal = (x * y).tobytes()
    for name in floating_point.STATES:
        with floating_point.state(name):
            changed = (x * y).tobytes()
        assert changed != normal, name
    assert (x * y).tobytes() == normal


@FP
@each_isa
@each_dtype
@pytest.mark.parametrize("threads", [1, 3])
def test_results_do_not_depend_on_the_state_of_the_caller(isa, dtype, threads, finely):
    cpu.set_isa(isa)
    cl.set_num_threads(threads)
    for scale in SCALES[dtype]:
        calls = small_calls(dtype, scale, 6)
        expected = bits_of(calls)
        for name in floating_point.STATES:
            with floating_point.state(name):
                before = floating_point.control()
                wrong = differing(calls, expected)
                after = floating_point.control()
            assert not wrong, f"{isa}, state {name!r}, scale {scale}"
            assert before == after


@FP
@each_dtype
def test_results_of_large_calls_do_not_depend_on_it_either(dtype):
    cl.set_num_threads(2)
    calls = list(Calls(35, dtype, LARGE[0], SCALES[dtype][1]))
    expected = bits_of(calls)
    for name in ("flush", "up"):
        with floating_point.state(name):
            wrong = differing(calls, expected)
        assert not wrong, name


@FP
@needs_fork
@forks
def test_threads_started_in_that_state_do_not_keep_it(finely):
    cl.set_num_threads(3)
    calls = small_calls("float32", 1e-20, 6)
    expected = bits_of(calls)

    def child():  # the pool starts anew
        with floating_point.state("flush, up"):
            return bool(differing(calls, expected))

    assert in_a_forked_child(child) == 0


@FP
def test_the_state_comes_back_when_a_kernel_raises_and_when_calls_nest():
    x = np.float32([[1e-20, 3.0], [1.0, 1e-20]])
    expected = COMPILED.gemm(x, x).tobytes()

    def outer(a):
        inner = COMPILED.gemm(a, a).tobytes()
        assert floating_point.control() == normal
        assert COMPILED.gemm(a, a).tobytes() == inner == expected

    normal = floating_point.control()
    with floating_point.state("flush"):
        flushing = floating_point.control()
        with pytest.raises(TypeError):
            COMPILED.conv2d_forward(x, x)
        with pytest.raises(TypeError):
            COMPILED.relu_forward(x.astype(np.float16))
        assert floating_point.control() == flushing != normal
        cpu._kernels.gate(outer)(x)
        assert floating_point.control() == flushing
