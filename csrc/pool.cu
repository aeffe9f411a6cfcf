/* Pooling of images (planes, H, W) into (planes, OH, OW), planes = N C: formulas in cnnlib/ops/pool.py.

   Forward. Small windows: one thread per output, blockDim = (1, 256), its neighbours along OW, so that the reads of a warp lie
   close together and what windows share comes from the cache. Large windows, such as those of global pooling, which are few: one
   warp per output, blockDim = (32, 8). Its lanes go along the columns of the window, so that they read neighbours, and then
   combine what they have. window_lanes() in pool.py chooses.

   Backward gathers: one thread per element of dx visits the windows that cover it, in their order, and takes its share of each.
   No two threads write to one place, nothing has to be cleared before, and the order of the sum is fixed. */

#include "cuda.cuh"

#define GEOMETRY idx planes, idx H, idx W, idx OH, idx OW, idx KH, idx KW, idx SH, idx SW, idx top, idx left

/* The output of this group of lanes: oh, ow, and x of its plane; first_h ... last_h, first_w ... last_w is what of its window lies
   inside the image, counted from the window's start. */
#define WINDOW                                                                                          \
    const idx o = (idx)blockIdx.x * blockDim.y + threadIdx.y;                                           \
    if (o >= planes * OH * OW) return;                                                                  \
    const idx ow = o % OW, oh = o / OW % OH;                                                            \
    const idx start_h = oh * SH - top, start_w = ow * SW - left;                                        \
    const idx first_h = max(0LL, -start_h), last_h = min(KH, H - start_h) - 1;                          \
    const idx first_w = max(0LL, -start_w), last_w = min(KW, W - start_w) - 1;                          \
    const REAL *x = xs + o / OW / OH * H * W;

#define FOR_WINDOW(kh, kw)                                                                              \
    for (idx kh = first_h; kh <= last_h; kh++)                                                          \
        for (idx kw = first_w + threadIdx.x; kw <= last_w; kw += blockDim.x)

static __device__ __forceinline__ REAL sum_of_lanes(REAL v) { return blockDim.x == 1 ? v : group_sum(v); }

/* The element of this thread, and the windows that cover it: outputs first_oh ... last_oh, first_ow ... last_ow. */
#define COVERED                                                                                         \
    const idx i = thread_number();                                                                      \
    if (i >= planes * H * W) return;                                                                    \
    const idx w = i % W, h = i / W % H, first_o = i / W / H * OH * OW;                                  \
    const idx first_oh = h + top < KH ? 0 : (h + top - KH) / SH + 1, last_oh = min(OH - 1, (h + top) / SH);     \
    const idx first_ow = w + left < KW ? 0 : (w + left - KW) / SW + 1, last_ow = min(OW - 1, (w + left) / SW);

#define FOR_COVERING(o, oh, ow)                                                                         \
    for (idx oh = first_oh; oh <= last_oh; oh++)                                                        \
        for (idx ow = first_ow, o = first_o + oh * OW + ow; ow <= last_ow; ow++, o++)

/* ---- max: argmax is of bytes or of ints ---- */

/* Whether v at place k of the window beats the best so far: larger, or NaN, or equal and before it. */
static __device__ __forceinline__ bool beats(REAL v, idx k, REAL best, idx winner) {
    if (v != v || best != best) return v != v && (best == best || k < winner);
    return v > best || (v == best && k < winner);
}

KERNEL max_pool2d(GEOMETRY, idx bytes, const REAL *__restrict__ xs, REAL *__restrict__ y, void *__restrict__ argmax) {
    WINDOW
    REAL best = -INFINITE;
    idx winner = KH * KW;   /* beyond all places: a lane without elements loses, and one that sees only -infinity wins from it */
    FOR_WINDOW(kh, kw) {
        const REAL v = x[(start_h + kh) * W + start_w + kw];
        if (beats(v, kh * KW + kw, best, winner)) best = v, winner = kh * KW + kw;
    }
    for (int half = (int)blockDim.x / 2; half > 0; half /= 2) {
        const REAL v = __shfl_xor_sync(0xffffffff, best, half);
        const idx k = __shfl_xor_sync(0xffffffff, winner, half);
        if (beats(v, k, best, winner)) best = v, winner = k;
    }
    if (threadIdx.x) return;
    y[o] = best;
    if (bytes) ((byte *)argmax)[o] = (byte)winner;
    else ((int *)argmax)[o] = (int)winner;
}
KERNEL max_pool2d_backward(GEOMETRY, idx bytes, const REAL *__restrict__ dy, const void *__restrict__ argmax,
                           REAL *__restrict__ dx) {
    COVERED
    REAL sum = 0;
    FOR_COVERING(o, oh, ow) {
        const idx mine = (h - oh * SH + top) * KW + (w - ow * SW + left);
        const idx winner = bytes ? ((const byte *)argmax)[o] : ((const int *)argmax)[o];
        if (winner == mine) sum += dy[o];
    }
    dx[i] = sum;
}

/* ---- average ---- */

KERNEL avg_pool2d(GEOMETRY, idx count_include_pad, const REAL *__restrict__ xs, REAL *__restrict__ y) {
    WINDOW
    REAL sum = 0;
    FOR_WINDOW(kh, kw) sum += x[(start_h + kh) * W + start_w + kw];
    sum = sum_of_lanes(sum);
    const idx count = count_include_pad ? KH * KW : (last_h - first_h + 1) * (last_w - first_w + 1);
    if (threadIdx.x == 0) y[o] = sum / (REAL)count;
}
KERNEL avg_pool2d_backward(GEOMETRY, idx count_include_pad, const REAL *__restrict__ dy, REAL *__restrict__ dx) {
    COVERED
    REAL sum = 0;
    FOR_COVERING(o, oh, ow) {
        const idx start_h = oh * SH - top, start_w = ow * SW - left;
        const idx rows = min(KH, H - start_h) - max(0LL, -start_h), columns = min(KW, W - start_w) - max(0LL, -start_w);
        sum += dy[o] / (REAL)(count_include_pad ? KH * KW : rows * columns);
    }
    dx[i] = sum;
}

/* ---- Lp ---- */

/* a^p of a >= 0. Powers cost, and p is mostly 1 or 2. */
static __device__ __forceinline__ REAL power(REAL a, REAL p) { return p == 1 ? a : p == 2 ? a * a : pow(a, p); }

KERNEL lp_pool2d(GEOMETRY, double p, const REAL *__restrict__ xs, REAL *__restrict__ y) {
    WINDOW
    REAL sum = 0;
    FOR_WINDOW(kh, kw) sum += power(fabs(x[(start_h + kh) * W + start_w + kw]), (REAL)p);
    sum = sum_of_lanes(sum);
    if (threadIdx.x == 0) y[o] = p == 1 ? sum : p == 2 ? sqrt(sum) : pow(sum, (REAL)(1 / p));
}
KERNEL lp_pool2d_backward(GEOMETRY, double p, const REAL *__restrict__ dy, const REAL *__restrict__ x, const REAL *__restrict__ y,
                          REAL *__restrict__ dx) {
    COVERED
    const REAL v = x[i], sign = v > 0 ? 1 : v < 0 ? -1 : v;   /* v: 0, or NaN */
    REAL sum = 0;
    FOR_COVERING(o, oh, ow) {
        const REAL divisor = y[o] == 0 ? 1 : y[o];   /* where y = 0, all of the window is 0, and so is sign */
        sum += dy[o] * sign * (p == 1 ? 1 : power(fabs(v) / divisor, (REAL)(p - 1)));
    }
    dx[i] = sum;
}
