/* Convolution. Formulas and adjoints: cnnlib/ops/conv.py.

   Implicit GEMM. A convolution is a matrix product: weights (F, K) times windows (K, N OH OW), K = C KH KW, where column q
   holds what output pixel q sees of the image. The matrix of windows is never written down: whoever needs an entry reads the
   pixel that it stands for.

     - A block computes a tile of the product, 8 ROWS output channels times 128 pixels. Its 128 threads stand as 8 x 16; each
       keeps ROWS x 8 sums in registers: for ROWS + 8 numbers read it multiplies 8 ROWS times, and so is bound by arithmetic.
       Few output channels take fewer ROWS, so that a tile does not reach far over the edge.
     - K is walked in steps of 8. What a step needs of both matrices lies in shared memory, transposed so that neighbouring
       threads read neighbours, rows 4 longer than needed so that writing meets no bank twice. There are two such buffers:
       while one is multiplied, the numbers of the next step are on their way from memory into registers.
     - Of the windows, thread t loads pixel t: a warp reads 32 neighbouring pixels, one transfer at stride 1. Which tap k is
       changes from step to step by counting, without a division.

   The adjoint of the input is a convolution, too. A pixel h of dx met tap kh where (h + top - kh D) is a multiple of the stride
   S: with (h + top) mod S given, one of S phases, those are every S / gcd(S, D)-th tap, and they read neighbouring dy, in
   reversed order. So each phase is a convolution of dy by some of the taps, with stride 1 and a negative dilation, and the
   kernel is the same; nothing is multiplied by a zero that a stride left between two dy.

   The adjoint of the weights is the product dy (F, N OH OW) times windows^T (N OH OW, K), tiled alike. Its sum over all pixels is
   long and its result small: the sum is cut into parts, so that there are blocks enough. So is the sum over K of an image that
   has few pixels. Their number follows from the shape, and sum_of_parts adds them in order: equal bits from run to run.

   Places inside one image are ints: it has less than 2^31 numbers. Places in a batch are idx. */

#include "cuda.cuh"

enum { STEP = 8, COLUMNS = 128 };   /* of a tile: terms at a time, and columns, as many as threads */

/* ---- the tile product ---- */

template <int ROWS> struct tiles {
    REAL a[STEP][8 * ROWS + 4];
    REAL b[STEP][COLUMNS + 4];
};

/* The thread's columns are 4 and, half a tile on, 4 more: 16 threads then read 64 neighbours, in pieces of 4. */
static __device__ __forceinline__ int column_of(int j) { return threadIdx.x % 16 * 4 + j % 4 + j / 4 * (COLUMNS / 2); }

template <int ROWS> static __device__ __forceinline__ void multiply(const tiles<ROWS> &t, REAL sums[ROWS][8]) {
    const int row = threadIdx.x / 16 * ROWS;
#pragma unroll
    for (int k = 0; k < STEP; k++) {
        REAL a[ROWS], b[8];
#pragma unroll
        for (int i = 0; i < ROWS; i++) a[i] = t.a[k][row + i];
#pragma unroll
        for (int j = 0; j < 8; j++) b[j] = t.b[k][column_of(j)];
#pragma unroll
        for (int i = 0; i < ROWS; i++)
#pragma unroll
            for (int j = 0; j < 8; j++) sums[i][j] += a[i] * b[j];
    }
}

/* The sum of two such numbers, and the next one: no division. */
static __device__ __forceinline__ digits plus(digits x, digits y, int B, int C) {
    digits sum = {x.a + y.a, x.b + y.b, x.c + y.c};
    if (sum.c >= C) sum.c -= C, sum.b++;
    if (sum.b >= B) sum.b -= B, sum.a++;
    return sum;
}
static __device__ __forceinline__ digits next(digits x, int B, int C) { return plus(x, {0, 0, 1}, B, C); }

/* ---- forward, and the adjoint of the input ---- */

/* Along one axis, output pixel first + i step, i < count, reads source pixels start + i stride + j dilation, j < taps, and
   multiplies them by taps tap + j tap_step. */
struct axis { int first, step, count, start, stride, dilation, tap, tap_step, taps; };

static __device__ axis forward_axis(int outputs, int stride, int pad, int dilation, int taps) {
    return {0, 1, outputs, -pad, stride, dilation, 0, 1, taps};
}

/* The pixels h with (h + pad) mod stride == phase. */
static __device__ axis backward_axis(int outputs, int stride, int pad, int dilation, int taps, int phase) {
    const int first = ((phase - pad) % stride + stride) % stride;
    int tap_step = 1, tap = 0;
    while (tap_step * dilation % stride) tap_step++;
    while (tap < tap_step && tap * dilation % stride != phase) tap++;
    const int met = tap < tap_step && tap < taps ? (taps - 1 - tap) / tap_step + 1 : 0;
    return {first, stride, first < outputs ? (outputs - 1 - first) / stride + 1 : 0, (first + pad - tap * dilation) / stride, 1,
            -(tap_step * dilation / stride), tap, tap_step, met};
}

/* source (N, G C, H, W), out (N, G M, OH, OW) or, of several parts, one behind the other; w (G M, C, KH, KW), or backward
   (G C, M, KH, KW). Blocks are numbered (column tile, phase, group, part, row tile): neighbours share what they read. */
template <int ROWS>
static __device__ void convolve(bool backward, int groups, idx N, int C, int H, int W, int M, int OH, int OW, int KH, int KW,
                                int SH, int SW, int top, int left, int DH, int DW, int parts, const REAL *__restrict__ w,
                                const REAL *__restrict__ source, const REAL *__restrict__ bias, REAL *__restrict__ out) {
    __shared__ __align__(16) tiles<ROWS> buffers[2];

    idx block = blockIdx.x;
    const int row_tiles = CEIL_DIV(M, 8 * ROWS), row_tile = (int)(block % row_tiles) * 8 * ROWS;
    block /= row_tiles;
    const int part = (int)(block % parts);
    block /= parts;
    const int group = (int)(block % groups);
    block /= groups;
    const int phases = backward ? SH * SW : 1, phase = (int)(block % phases);
    block /= phases;
    const axis h = backward ? backward_axis(OH, SH, top, DH, KH, phase / SW) : forward_axis(OH, SH, top, DH, KH);
    const axis v = backward ? backward_axis(OW, SW, left, DW, KW, phase % SW) : forward_axis(OW, SW, left, DW, KW);
    const idx columns = N * h.count * v.count, first_column = block * COLUMNS;
    if (first_column >= columns) return;   /* a phase with fewer pixels than others */

    const int K = C * h.taps * v.taps, per_part = CEIL_DIV(CEIL_DIV(K, parts), STEP) * STEP;
    const int first = part * per_part, last = K < first + per_part ? K : first + per_part;

    /* Weights: thread t loads tap t % 8 of rows t / 8 + 16 r. */
    const int row_step = backward ? KH * KW : C * KH * KW, channel_step = backward ? M * KH * KW : KH * KW;
    const int my_k = threadIdx.x % STEP, my_row = threadIdx.x / STEP;
    const REAL *my_w = w + ((idx)group * M * C * KH * KW + (idx)(row_tile + my_row) * row_step + h.tap * KW + v.tap);
    digits w_tap = {0, 0, 0}, tap = {0, 0, 0}, eight = {0, 0, 0};
    if (K) {
        w_tap = digits_of(first + my_k, h.taps, v.taps), tap = digits_of(first, h.taps, v.taps);
        eight = digits_of(STEP, h.taps, v.taps);
    }
    /* Windows: thread t loads pixel t, all taps. */
    const bool inside = first_column + threadIdx.x < columns;
    const digits pixel = digits_of(inside ? first_column + threadIdx.x : 0, h.count, v.count);
    const REAL *my_source = source + ((idx)pixel.a * groups + group) * C * H * W;
    const int my_h = h.start + pixel.b * h.stride, my_v = v.start + pixel.c * v.stride;

    REAL next_a[ROWS / 2], next_b[STEP];
    auto load = [&](int k) {
#pragma unroll
        for (int r = 0; r < ROWS / 2; r++) {
            const bool there = k + my_k < last && row_tile + my_row + 16 * r < M;
            const int place = w_tap.a * channel_step + w_tap.b * h.tap_step * KW + w_tap.c * v.tap_step;
            next_a[r] = there ? my_w[place + (idx)(16 * r) * row_step] : (REAL)0;
        }
        w_tap = plus(w_tap, eight, h.taps, v.taps);
#pragma unroll
        for (int r = 0; r < STEP; r++) {
            const int y = my_h + tap.b * h.dilation, x = my_v + tap.c * v.dilation;
            const bool there = inside && k + r < last && (unsigned)y < (unsigned)H && (unsigned)x < (unsigned)W;
            next_b[r] = there ? my_source[(tap.a * H + y) * W + x] : (REAL)0;
            tap = next(tap, h.taps, v.taps);
        }
    };
    auto store = [&](tiles<ROWS> &to) {
#pragma unroll
        for (int r = 0; r < ROWS / 2; r++) to.a[my_k][my_row + 16 * r] = next_a[r];
#pragma unroll
        for (int r = 0; r < STEP; r++) to.b[r][threadIdx.x] = next_b[r];
    };

    REAL sums[ROWS][8] = {};
    int current = 0;
    if (first < last) load(first), store(buffers[0]);
    __syncthreads();
    for (int k = first; k < last; k += STEP, current ^= 1) {
        if (k + STEP < last) load(k + STEP);
        multiply(buffers[current], sums);
        if (k + STEP < last) store(buffers[current ^ 1]);
        __syncthreads();
    }

    out += part * (N * groups * M * OH * OW);
#pragma unroll
    for (int j = 0; j < 8; j++) {
        const idx q = first_column + column_of(j);
        if (q >= columns) continue;
        const digits to = digits_of(q, h.count, v.count);
        const idx place = (idx)(h.first + to.b * h.step) * OW + v.first + to.c * v.step;
#pragma unroll
        for (int i = 0; i < ROWS; i++) {
            const int row = row_tile + threadIdx.x / 16 * ROWS + i;
            if (row >= M) continue;
            const idx channel = (idx)group * M + row;
            out[((idx)to.a * groups * M + channel) * OH * OW + place] = bias ? sums[i][j] + bias[channel] : sums[i][j];
        }
    }
}

#define CONVOLVE(ROWS)                                                                                                           \
    extern "C" __global__ void __launch_bounds__(128)                                                                            \
    conv2d_##ROWS(idx backward, idx groups, idx N, idx C, idx H, idx W, idx M, idx OH, idx OW, idx KH, idx KW, idx SH, idx SW,   \
                  idx top, idx left, idx DH, idx DW, idx parts, const REAL *w, const REAL *source, const REAL *bias, REAL *out) {  \
        convolve<ROWS>(backward, (int)groups, N, (int)C, (int)H, (int)W, (int)M, (int)OH, (int)OW, (int)KH, (int)KW, (int)SH,    \
                       (int)SW, (int)top, (int)left, (int)DH, (int)DW, (int)parts, w, source, bias, out);                        \
    }
CONVOLVE(8)
CONVOLVE(4)
CONVOLVE(2)

/* ---- the adjoint of the weights ---- */

/* dy (N, G M, OH, OW), x (N, G C, H, W) -> dw (G M, C, KH, KW), or several parts of it. Thread t loads pixel t % 8 of rows
   t / 8 + 16 r of dy and of columns t / 8 + 16 r of the windows: eight threads read neighbours. */
template <int ROWS>
static __device__ void convolve_weight(int groups, idx N, int C, int H, int W, int M, int OH, int OW, int KH, int KW, int SH,
                                       int SW, int top, int left, int DH, int DW, int parts, const REAL *__restrict__ dy,
                                       const REAL *__restrict__ x, REAL *__restrict__ dw) {
    __shared__ __align__(16) tiles<ROWS> buffers[2];
    __shared__ struct { int offset, h, w; } taps[COLUMNS];   /* of each column, from the first pixel of the window */

    idx block = blockIdx.x;
    const int K = C * KH * KW, row_tiles = CEIL_DIV(M, 8 * ROWS), column_tiles = CEIL_DIV(K, COLUMNS);
    const int row_tile = (int)(block % row_tiles) * 8 * ROWS;
    block /= row_tiles;
    const int column_tile = (int)(block % column_tiles) * COLUMNS;
    block /= column_tiles;
    const int group = (int)(block % groups), part = (int)(block / groups);

    const int column = column_tile + (int)threadIdx.x;
    const digits tap = digits_of(column < K ? column : 0, KH, KW);
    taps[threadIdx.x].offset = (tap.a * H + tap.b * DH) * W + tap.c * DW;
    taps[threadIdx.x].h = column < K ? tap.b * DH : H + top;   /* no such column: outside every image */
    taps[threadIdx.x].w = tap.c * DW;
    __syncthreads();

    const idx pixels = N * OH * OW, per_part = CEIL_DIV(CEIL_DIV(pixels, parts), STEP) * STEP, first = part * per_part;
    const idx last = pixels < first + per_part ? pixels : first + per_part;
    const int my_p = threadIdx.x % STEP, my_row = threadIdx.x / STEP;
    digits pixel = digits_of(first + my_p, OH, OW);
    const digits eight = digits_of(STEP, OH, OW);

    REAL next_a[ROWS / 2], next_b[COLUMNS / 16];
    auto load = [&](idx p) {
        const bool there = p + my_p < last;
        const REAL *of_dy = dy + (((idx)pixel.a * groups + group) * M + row_tile + my_row) * OH * OW + pixel.b * OW + pixel.c;
#pragma unroll
        for (int r = 0; r < ROWS / 2; r++)
            next_a[r] = there && row_tile + my_row + 16 * r < M ? of_dy[(idx)(16 * r) * OH * OW] : (REAL)0;
        const int top_row = pixel.b * SH - top, left_column = pixel.c * SW - left;
        const REAL *image = x + ((idx)pixel.a * groups + group) * C * H * W;
#pragma unroll
        for (int r = 0; r < COLUMNS / 16; r++) {
            const auto &t = taps[my_row + 16 * r];
            const bool inside = (unsigned)(top_row + t.h) < (unsigned)H && (unsigned)(left_column + t.w) < (unsigned)W;
            next_b[r] = there && inside ? image[t.offset + top_row * W + left_column] : (REAL)0;
        }
        pixel = plus(pixel, eight, OH, OW);
    };
    auto store = [&](tiles<ROWS> &to) {
#pragma unroll
        for (int r = 0; r < ROWS / 2; r++) to.a[my_p][my_row + 16 * r] = next_a[r];
#pragma unroll
        for (int r = 0; r < COLUMNS / 16; r++) to.b[my_p][my_row + 16 * r] = next_b[r];
    };

    REAL sums[ROWS][8] = {};
    int current = 0;
    if (first < last) load(first), store(buffers[0]);
    __syncthreads();
    for (idx p = first; p < last; p += STEP, current ^= 1) {
        if (p + STEP < last) load(p + STEP);
        multiply(buffers[current], sums);
        if (p + STEP < last) store(buffers[current ^ 1]);
        __syncthreads();
    }

    dw += part * ((idx)groups * M * K);
#pragma unroll
    for (int i = 0; i < ROWS; i++) {
        const int row = row_tile + threadIdx.x / 16 * ROWS + i;
#pragma unroll
        for (int j = 0; j < 8; j++)
            if (row < M && column_tile + column_of(j) < K)
                dw[((idx)group * M + row) * K + column_tile + column_of(j)] = sums[i][j];
    }
}

#define CONVOLVE_WEIGHT(ROWS)                                                                                                    \
    extern "C" __global__ void __launch_bounds__(128)                                                                            \
    conv2d_weight_##ROWS(idx groups, idx N, idx C, idx H, idx W, idx M, idx OH, idx OW, idx KH, idx KW, idx SH, idx SW,          \
                         idx top, idx left, idx DH, idx DW, idx parts, const REAL *dy, const REAL *x, REAL *dw) {                \
        convolve_weight<ROWS>((int)groups, N, (int)C, (int)H, (int)W, (int)M, (int)OH, (int)OW, (int)KH, (int)KW, (int)SH,       \
                              (int)SW, (int)top, (int)left, (int)DH, (int)DW, (int)parts, dy, x, dw);                            \
    }
CONVOLVE_WEIGHT(8)
CONVOLVE_WEIGHT(4)
CONVOLVE_WEIGHT(2)

/* out[i] = sum over parts of partial[part][i], and the bias of i's channel; out is (..., C, S). One thread per output. */
KERNEL sum_of_parts(idx n, idx parts, idx C, idx S, const REAL *__restrict__ partial, const REAL *__restrict__ bias,
                    REAL *__restrict__ out) {
    const idx i = thread_number();
    if (i >= n) return;
    REAL sum = partial[i];
#pragma unroll 4
    for (idx part = 1; part < parts; part++) sum += partial[part * n + i];
    const idx plane = divided(i, S);
    out[i] = bias ? sum + bias[plane - divided(plane, C) * C] : sum;
}

/* db (parts, F): a block per channel and part of the batch sums dy (N, F, P). */
KERNEL conv2d_bias(idx N, idx F, idx P, idx parts, const REAL *__restrict__ dy, REAL *__restrict__ db) {
    const idx f = blockIdx.x % F, part = blockIdx.x / F, images = CEIL_DIV(N, parts);
    const idx last = N < (part + 1) * images ? N : (part + 1) * images;
    REAL sum = 0;
    for (idx n = part * images; n < last; n++)
#pragma unroll 4
        for (idx p = threadIdx.x; p < P; p += blockDim.x) sum += dy[(n * F + f) * P + p];
    sum = group_sum(sum);
    if (threadIdx.x == 0) db[blockIdx.x] = sum;
}
