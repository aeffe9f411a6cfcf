/* Pooling of images (planes, H, W) into (planes, OH, OW), planes = N C: formulas in cnnlib/ops/pool.py.

   A thread does one place of PLANES planes, its neighbours the places next to it: where the windows lie takes more instructions
   than what is done with them, and is worked out once for all of these planes. A warp reads and writes neighbours.

   Forward. Small windows: one thread per output, blockDim = (1, 256); what windows share comes from the cache. Large windows, such
   as those of global pooling, which are few: one warp per output, blockDim = (32, 8). Its lanes go along the columns of the
   window, so that they read neighbours, and then combine what they have. window_lanes() in pool.py chooses.

   Backward gathers: one thread per element of dx visits the windows that cover it, in their order, and takes its share of each.
   No two threads write to one place, nothing has to be cleared before, and the order of the sum is fixed. */

#include "cuda.cuh"

enum { PLANES = 4 };   /* as pool.py has it */

#define GEOMETRY idx planes, idx H, idx W, idx OH, idx OW, idx KH, idx KW, idx SH, idx SW, idx top, idx left

/* Of place number i among the rows * columns places of the groups of planes: row and column; the planes are first_plane and what
   follows. */
#define PLACE(i, rows, columns, row, column)                                                            \
    const idx line = divided(i, columns), group = divided(line, rows), first_plane = group * PLANES;    \
    if (first_plane >= planes) return;                                                                  \
    const int row = (int)(line - group * rows), column = (int)(i - line * columns);
#define FOR_PLANES(plane) \
    for (idx plane = first_plane, end = min(planes, first_plane + PLANES); plane < end; plane++)

/* ---- forward: this thread's output (oh, ow), or that of its group of lanes. Its window starts at (start_h, start_w); what lies
   inside of the image are its rows first_h ... last_h and columns first_w ... last_w ---- */

#define WINDOW                                                                                          \
    PLACE((idx)blockIdx.x * blockDim.y + threadIdx.y, OH, OW, oh, ow)                                   \
    const int start_h = (int)(oh * SH - top), start_w = (int)(ow * SW - left);                          \
    const int first_h = max(0, -start_h), last_h = min((int)KH, (int)H - start_h) - 1;                  \
    const int first_w = max(0, -start_w), last_w = min((int)KW, (int)W - start_w) - 1;

/* v: element (kh, kw) of the window in x, an array of planes. */
#define FOR_WINDOW(x, plane, kh, kw, v)                                                                 \
    for (int kh = first_h; kh <= last_h; kh++)                                                          \
        for (int kw = first_w + (int)threadIdx.x; kw <= last_w; kw += (int)blockDim.x)                  \
            if (const REAL v = x[((plane) * H + start_h + kh) * W + start_w + kw]; true)

#define OUTPUT(plane) (((plane) * OH + oh) * OW + ow)

static __device__ __forceinline__ REAL sum_of_lanes(REAL v) { return blockDim.x == 1 ? v : group_sum(v); }

/* ---- backward: this thread's element (h, w), and the windows that cover it: outputs first_oh ... last_oh, first_ow ... last_ow */

#define COVERED                                                                                         \
    PLACE(thread_number(), H, W, h, w)                                                                  \
    const int first_oh = h + top < KH ? 0 : (int)divided(h + top - KH, SH) + 1;                         \
    const int first_ow = w + left < KW ? 0 : (int)divided(w + left - KW, SW) + 1;                       \
    const int last_oh = (int)min(OH - 1, divided(h + top, SH)), last_ow = (int)min(OW - 1, divided(w + left, SW));

#define FOR_COVERING(oh, ow)                                                                            \
    for (int oh = first_oh; oh <= last_oh; oh++)                                                        \
        for (int ow = first_ow; ow <= last_ow; ow++)

#define INPUT(plane) (((plane) * H + h) * W + w)

/* ---- max: argmax is of bytes or of ints ---- */

/* Whether v at place k of the window beats the best so far: larger, or NaN, or equal and before it. */
static __device__ __forceinline__ bool beats(REAL v, int k, REAL best, int winner) {
    if (v != v || best != best) return v != v && (best == best || k < winner);
    return v > best || (v == best && k < winner);
}

KERNEL max_pool2d(GEOMETRY, idx bytes, const REAL *__restrict__ x, REAL *__restrict__ y, void *__restrict__ argmax) {
    WINDOW
    FOR_PLANES(plane) {
        REAL best = -INFINITE;
        int winner = (int)(KH * KW);   /* beyond all places: it loses, also where all there is is -infinity */
        FOR_WINDOW(x, plane, kh, kw, v)
            if (beats(v, kh * (int)KW + kw, best, winner)) best = v, winner = kh * (int)KW + kw;
        for (int half = (int)blockDim.x / 2; half > 0; half /= 2) {
            const REAL v = __shfl_xor_sync(0xffffffff, best, half);
            const int k = __shfl_xor_sync(0xffffffff, winner, half);
            if (beats(v, k, best, winner)) best = v, winner = k;
        }
        if (threadIdx.x) continue;
        y[OUTPUT(plane)] = best;
        if (bytes) ((byte *)argmax)[OUTPUT(plane)] = (byte)winner;
        else ((int *)argmax)[OUTPUT(plane)] = winner;
    }
}
KERNEL max_pool2d_backward(GEOMETRY, idx bytes, const REAL *__restrict__ dy, const void *__restrict__ argmax,
                           REAL *__restrict__ dx) {
    COVERED
    FOR_PLANES(plane) {
        REAL sum = 0;
        FOR_COVERING(oh, ow) {
            const int mine = (int)((h - oh * SH + top) * KW + (w - ow * SW + left));
            const int winner = bytes ? ((const byte *)argmax)[OUTPUT(plane)] : ((const int *)argmax)[OUTPUT(plane)];
            if (winner == mine) sum += dy[OUTPUT(plane)];
        }
        dx[INPUT(plane)] = sum;
    }
}

/* ---- average ---- */

KERNEL avg_pool2d(GEOMETRY, idx count_include_pad, const REAL *__restrict__ x, REAL *__restrict__ y) {
    WINDOW
    const idx count = count_include_pad ? KH * KW : (idx)(last_h - first_h + 1) * (last_w - first_w + 1);
    FOR_PLANES(plane) {
        REAL sum = 0;
        FOR_WINDOW(x, plane, kh, kw, v) sum += v;
        sum = sum_of_lanes(sum);
        if (threadIdx.x == 0) y[OUTPUT(plane)] = sum / (REAL)count;
    }
}
KERNEL avg_pool2d_backward(GEOMETRY, idx count_include_pad, const REAL *__restrict__ dy, REAL *__restrict__ dx) {
    COVERED
    FOR_PLANES(plane) {
        REAL sum = 0;
        FOR_COVERING(oh, ow) {
            const idx start_h = oh * SH - top, start_w = ow * SW - left;
            const idx rows = min(KH, H - start_h) - max(0LL, -start_h), columns = min(KW, W - start_w) - max(0LL, -start_w);
            sum += dy[OUTPUT(plane)] / (REAL)(count_include_pad ? KH * KW : rows * columns);
        }
        dx[INPUT(plane)] = sum;
    }
}

/* ---- Lp ---- */

/* a^p of a >= 0. Powers cost, and p is mostly 1 or 2. */
static __device__ __forceinline__ REAL power(REAL a, REAL p) { return p == 1 ? a : p == 2 ? a * a : pow(a, p); }

KERNEL lp_pool2d(GEOMETRY, double p, const REAL *__restrict__ x, REAL *__restrict__ y) {
    WINDOW
    FOR_PLANES(plane) {
        REAL sum = 0;
        FOR_WINDOW(x, plane, kh, kw, v) sum += power(fabs(v), (REAL)p);
        sum = sum_of_lanes(sum);
        if (threadIdx.x == 0) y[OUTPUT(plane)] = p == 1 ? sum : p == 2 ? sqrt(sum) : pow(sum, (REAL)(1 / p));
    }
}
KERNEL lp_pool2d_backward(GEOMETRY, double p, const REAL *__restrict__ dy, const REAL *__restrict__ x, const REAL *__restrict__ y,
                          REAL *__restrict__ dx) {
    COVERED
    FOR_PLANES(plane) {
        const REAL v = x[INPUT(plane)], sign = v > 0 ? 1 : v < 0 ? -1 : v;   /* v: 0, or NaN */
        REAL sum = 0;
        FOR_COVERING(oh, ow) {
            const REAL of_window = y[OUTPUT(plane)], divisor = of_window == 0 ? 1 : of_window;   /* 0: so is sign */
            sum += dy[OUTPUT(plane)] * sign * (p == 1 ? 1 : power(fabs(v) / divisor, (REAL)(p - 1)));
        }
        dx[INPUT(plane)] = sum;
    }
}
