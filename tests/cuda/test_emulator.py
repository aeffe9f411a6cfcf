"""The emulator finds what is wrong in a CUDA kernel: each mistake is planted here."""

import numpy as np
import pytest

from tests.cuda import emulator, fake_cupy
from tests.cuda.device import needs_emulator

pytestmark = needs_emulator

REVERSE = """
extern "C" __global__ void reverse(const float *x, float *y) {
    __shared__ float tile[64];
    tile[threadIdx.x] = x[blockIdx.x * 64 + threadIdx.x];
    BARRIER
    y[blockIdx.x * 64 + threadIdx.x] = tile[63 - threadIdx.x];
}"""


def run(source, name, grid, block, *arguments):
    emulator.Module(source).get_function(name)(grid, block, arguments)


def reversed_in_parts(source):
    x = fake_cupy.asarray(np.arange(192, dtype=np.float32))
    y = fake_cupy.empty_like(x)
    run(source, "reverse", (3,), (64,), x, y)
    return y.get(), x.get().reshape(3, 64)[:, ::-1].reshape(-1)


def test_a_barrier_lets_threads_read_what_others_wrote():
    np.testing.assert_array_equal(*reversed_in_parts(REVERSE.replace("BARRIER", "__syncthreads();")))


def test_a_missing_barrier_shows_as_nan():
    got, _ = reversed_in_parts(REVERSE.replace("BARRIER", ""))
    assert np.isnan(got).any()


TURNS = """
extern "C" __global__ void turns(int *y) {
    __shared__ int shown[64];
    for (int turn = 0; turn < 2; turn++) {
        shown[threadIdx.x] = turn;
        __syncthreads();
        y[threadIdx.x * 2 + turn] = shown[63 - threadIdx.x];
        BARRIER
    }
}"""


def test_a_warp_runs_ahead_where_nothing_holds_it():
    """Into the next turn, before the other warp has read what it left in this one."""
    for barrier, right in (("__syncthreads();", True), ("", False)):
        y = fake_cupy.empty((64, 2), "int32")
        run(TURNS.replace("BARRIER", barrier), "turns", (1,), (64,), y)
        assert (y.get() == [0, 1]).all() == right


@pytest.mark.parametrize("condition", ["threadIdx.x < 40", "threadIdx.x < 32"])
def test_a_barrier_that_not_all_reach_is_an_error(condition):
    source = REVERSE.replace("BARRIER", f"if ({condition}) __syncthreads();")
    with pytest.raises(emulator.EmulatorError, match=r"reverse: __syncthreads\(\) that not all threads"):
        reversed_in_parts(source)


def test_a_shuffle_that_not_all_reach_is_an_error():
    with pytest.raises(emulator.EmulatorError, match="a shuffle that not all lanes"):
        reversed_in_parts(REVERSE.replace("BARRIER", "if (threadIdx.x != 5) __shfl_down_sync(0xffffffff, 1, 1);"))


MEETING = """
extern "C" __global__ void meeting(unsigned *arrived, const float *x, float *y) {
    __shared__ float own[32];
    for (int turn = 0; turn < 3; turn++) {
        own[threadIdx.x] = x[blockIdx.x];
        y[turn * gridDim.x * 32 + blockIdx.x * 32 + threadIdx.x] = own[threadIdx.x];
        __syncthreads();
        if (threadIdx.x == 0 && (CONDITION)) {
            __threadfence();
            atomicAdd(arrived, 1u);
            while (*(volatile unsigned *)arrived < (turn + 1) * gridDim.x) __nanosleep(32);
            __threadfence();
        }
        __syncthreads();
        float sum = 0;
        for (int other = 0; other < gridDim.x; other++) sum += y[turn * gridDim.x * 32 + other * 32 + threadIdx.x];
        y[turn * gridDim.x * 32 + blockIdx.x * 32 + threadIdx.x] = own[threadIdx.x];
        if (turn == 2) y[3 * gridDim.x * 32 + blockIdx.x * 32 + threadIdx.x] = sum;
    }
}"""


def met(condition, blocks=5, cooperative=True, seed=0):
    x, y = fake_cupy.asarray(np.arange(blocks, dtype=np.float32)), fake_cupy.empty((4, blocks, 32), "float32")
    arrived = fake_cupy.zeros(1, "uint32")
    module = emulator.Module(MEETING.replace("CONDITION", condition), enable_cooperative_groups=cooperative)
    emulator.seed = seed
    module.get_function("meeting")((blocks,), (32,), (arrived, x, y))
    return y.get()


@pytest.mark.parametrize("seed", range(5))
def test_blocks_of_a_cooperative_launch_meet_and_keep_their_shared_memory(seed):
    y = met("true", seed=seed)
    np.testing.assert_array_equal(y[:3], np.broadcast_to(np.arange(5, dtype=np.float32)[:, None], (3, 5, 32)))
    assert (y[3] == 10).all()


def test_blocks_that_do_not_wait_read_what_is_not_there_yet():
    assert np.isnan(met("false")[3]).any()


def test_blocks_that_wait_for_each_other_for_ever_are_an_error():
    with pytest.raises(emulator.EmulatorError, match="meeting: blocks wait for each other for ever"):
        met("blockIdx.x")


def test_a_block_that_waits_for_another_in_a_usual_launch_is_an_error():
    with pytest.raises(emulator.EmulatorError, match="need not be on the GPU: launch cooperatively"):
        met("true", cooperative=False)


def test_more_blocks_than_run_at_the_same_time_are_an_error():
    with pytest.raises(emulator.EmulatorError, match="33 blocks of 32 threads do not run at the same time"):
        met("true", blocks=33)


SHUFFLES = """
extern "C" __global__ void shuffles(int *y) {
    const int lane = threadIdx.x % 32;
    int *mine = y + 5 * (long long)threadIdx.x;
    mine[0] = __shfl_xor_sync(0xffffffff, lane, 5);
    mine[1] = __shfl_down_sync(0xffffffff, lane, 3);
    mine[2] = __shfl_up_sync(0xffffffff, lane, 3, 8);
    mine[3] = __shfl_sync(0xffffffff, lane, 2, 16);
    mine[4] = (int)__ballot_sync(0xffffffff, lane % 3 == 0);
}"""


def test_shuffles_mean_what_they_mean_on_a_gpu():
    y = fake_cupy.empty((64, 5), "int32")
    run(SHUFFLES, "shuffles", (1,), (64,), y)
    lane = np.arange(64) % 32
    down, up = np.where(lane < 29, lane + 3, lane), np.where(lane % 8 >= 3, lane - 3, lane)
    ballot = np.full(64, sum(1 << i for i in range(0, 32, 3)), np.uint32).view(np.int32)
    np.testing.assert_array_equal(y.get(), np.stack([lane ^ 5, down, up, lane // 16 * 16 + 2, ballot], axis=1))


ARGUMENTS = 'extern "C" __global__ void f(const float *x, long long n, double s) {}'
FLOATS = fake_cupy.empty(4, "float32")


@pytest.mark.parametrize(
    "arguments, message",
    [
        ((FLOATS, 1), "takes 3 arguments, got 2"),
        ((fake_cupy.empty(4, "float64"), 1, 1.0), r"argument 0 must be \*f, got \*d"),
        ((FLOATS, 1.0, 1.0), "argument 1 must be q, got d"),
        ((FLOATS, 1, 1), "argument 2 must be d, got q"),
        ((np.empty(4, "float32"), 1, 1.0), "a NumPy array where a kernel expects one on the device"),
        ((fake_cupy.empty((4, 4), "float32").T, 1, 1.0), "not contiguous"),
        ((FLOATS, np.int32(1), 1.0), "an argument of type int32"),
    ],
)
def test_an_argument_that_a_gpu_would_misread_is_an_error(arguments, message):
    with pytest.raises(emulator.EmulatorError, match=message):
        run(ARGUMENTS, "f", (1,), (32,), *arguments)


@pytest.mark.parametrize("grid, block", [((0,), (32,)), ((1,), (2048,)), ((1, 70000), (32,)), ((1,), (32, 64))])
def test_a_launch_that_no_gpu_can_do_is_an_error(grid, block):
    with pytest.raises(emulator.EmulatorError, match="is not possible on a GPU"):
        run(ARGUMENTS, "f", grid, block, FLOATS, 1, 1.0)


def test_arrays_of_the_host_and_the_device_do_not_mix():
    on_host, on_device = np.ones(3, "float32"), fake_cupy.asarray(np.ones(3, "float32"))
    for mix in (lambda: on_device + on_host, lambda: fake_cupy.maximum(on_device, on_host)):
        with pytest.raises(TypeError):
            mix()


def test_what_waits_for_the_device_is_noted():
    x = fake_cupy.asarray(np.ones(3, "float32"))
    fake_cupy.synchronisations.clear()
    total = (x * 2 + fake_cupy.exp(x)).sum()
    assert isinstance(total, fake_cupy.ndarray) and total.shape == () and not fake_cupy.synchronisations
    float(total), bool(x[0] > 0), x.get(), total.item()
    assert fake_cupy.synchronisations == ["float", "bool", "get", "item"]
