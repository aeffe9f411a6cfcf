/* Normalisations over the batch and over rows. Formulas and adjoints: cnnlib/ops/norm.py.

   Batch norm of x (N, C, S). A channel is N runs of S numbers. It is cut into parts, rectangles of `rows` runs times `length`
   numbers, and each part is a block's work, so that few channels keep a GPU busy, too. In a block, `lanes` threads stand along
   S, neighbours reading neighbours, and blockDim.x / lanes runs are read at a time; lanes is a power of two about a quarter of
   the length, so that threads have four numbers of a run each and few are idle where runs are short. Two launches: the first
   leaves sums of each part, the second adds up those of its channel, in order, and goes through its part again, which then
   often still is in the cache.

   Variances. E[x^2] - E[x]^2 of numbers far from 0 is a small difference of large ones. So each part finds its mean first, of
   differences from its first number, and then the squares of differences from that, which are read from the cache. With mean
   m_p and sum of squares q_p of a part of n_p numbers, a channel's are exact again:

       mean = m_0 + sum n_p (m_p - m_0) / m,   m var = sum q_p + n_p (m_p - mean)^2.

   They are added in double, once per part: a lane of the first warp each. A constant has a variance of exactly 0. What rounding
   the mean leaves, the shift takes back: y = (x - mean) scale + shift.

   Layer norm of x (R, D). A group of threads along x takes a row, a warp or a block: rows() in source.py. The sums over rows
   for dgamma and dbeta are those of linear.cu: 32 columns a block, 8 warps that take every 8th row. */

#include "cuda.cuh"

static __device__ __forceinline__ REAL or_one(const REAL *a, idx i) { return a ? a[i] : (REAL)1; }
static __device__ __forceinline__ REAL or_zero(const REAL *a, idx i) { return a ? a[i] : (REAL)0; }

/* ---- batch norm ---- */

enum { MOST_PARTS = 32 };   /* of a channel: a lane each, when they are added up */

/* The part of this block: runs n0 ... n1 of channel c, and of them s0 ... s1. Blocks are numbered (channel, part). */
struct rectangle { idx c, part, n0, n1, s0, s1; };

static __device__ rectangle my_rectangle(idx N, idx S, idx rows, idx length, idx parts) {
    const idx c = divided(blockIdx.x, parts), part = blockIdx.x - c * parts, across = divided(S + length - 1, length);
    const idx down = divided(part, across), n0 = down * rows, s0 = (part - down * across) * length;
    return {c, part, n0, N < n0 + rows ? N : n0 + rows, s0, S < s0 + length ? S : s0 + length};
}

/* Of a warp whose lanes have a part each: the sum. */
static __device__ double over_parts(double v) {
    for (int half = 16; half > 0; half /= 2) v += __shfl_xor_sync(0xffffffff, v, half);
    return v;
}

/* The thread's share of the block's rectangle, four numbers at a time: i, i + lanes, ... as long as below end. Memory answers
   late, so that a thread asks for four before it uses the first. */
#define FOR_RECTANGLE(i)                                                                        \
    for (idx n = r.n0 + threadIdx.x / (int)lanes; n < r.n1; n += blockDim.x / (int)lanes)       \
        for (idx i = (n * C + r.c) * S + r.s0 + threadIdx.x % (int)lanes, end = (n * C + r.c) * S + r.s1; i < end; i += 4 * lanes)
#define FOUR(k) _Pragma("unroll") for (int k = 0; k < 4; k++)

static __device__ __forceinline__ REAL load(const REAL *x, idx i, idx end, REAL otherwise) { return i < end ? x[i] : otherwise; }

/* moments (C, parts, 3): how many numbers, their mean, the sum of squares of differences from it. */
KERNEL batch_norm_moments(idx N, idx C, idx S, idx rows, idx length, idx lanes, idx parts, const REAL *__restrict__ x,
                          double *__restrict__ moments) {
    const rectangle r = my_rectangle(N, S, rows, length, parts);
    const double count = (double)((r.n1 - r.n0) * (r.s1 - r.s0));
    REAL mean = x[(r.n0 * C + r.c) * S + r.s0], sum = 0, squares = 0;
    FOR_RECTANGLE(i) {
        REAL v[4];
        FOUR(k) v[k] = load(x, i + k * lanes, end, mean);
        FOUR(k) sum += v[k] - mean;
    }
    mean += group_sum(sum) / (REAL)count;
    sum = 0;
    FOR_RECTANGLE(i) {
        REAL d[4];
        FOUR(k) d[k] = load(x, i + k * lanes, end, mean) - mean;
        FOUR(k) sum += d[k], squares += d[k] * d[k];
    }
    const double rest = group_sum(sum), m2 = group_sum(squares);
    if (threadIdx.x) return;
    double *of = moments + 3 * (idx)blockIdx.x;
    of[0] = count, of[1] = mean + rest / count, of[2] = m2 - rest * rest / count;
}

#define SCALE_RECTANGLE(y, x, mean, scale, shift)                                              \
    FOR_RECTANGLE(i) {                                                                          \
        REAL v[4];                                                                              \
        FOUR(k) v[k] = load(x, i + k * lanes, end, 0);                                          \
        FOUR(k) if (i + k * lanes < end) y[i + k * lanes] = (v[k] - mean) * scale + shift;      \
    }

KERNEL batch_norm(idx N, idx C, idx S, idx rows, idx length, idx lanes, idx parts, double eps, const REAL *__restrict__ x,
                  const REAL *__restrict__ gamma, const REAL *__restrict__ beta, const double *__restrict__ moments,
                  REAL *__restrict__ y, REAL *__restrict__ mean_out, REAL *__restrict__ var_out) {
    __shared__ REAL of_channel[3];   /* mean, scale, shift */
    const rectangle r = my_rectangle(N, S, rows, length, parts);
    if (threadIdx.x < MOST_PARTS) {
        const double m = (double)(N * S), *of = moments + 3 * r.c * parts, *mine = of + 3 * threadIdx.x;
        const bool there = threadIdx.x < parts;
        const double mean = of[1] + over_parts(there ? mine[0] * (mine[1] - of[1]) : 0) / m;
        const double m2 = over_parts(there ? mine[2] + mine[0] * (mine[1] - mean) * (mine[1] - mean) : 0);
        const double var = m2 < 0 ? 0 : m2 / m, scale = or_one(gamma, r.c) / sqrt(var + eps);
        of_channel[0] = (REAL)mean, of_channel[1] = (REAL)scale;
        of_channel[2] = (REAL)(or_zero(beta, r.c) - (mean - (REAL)mean) * scale);
        if (r.part == 0 && threadIdx.x == 0) mean_out[r.c] = (REAL)mean, var_out[r.c] = (REAL)var;
    }
    __syncthreads();
    const REAL mean = of_channel[0], scale = of_channel[1], shift = of_channel[2];
    SCALE_RECTANGLE(y, x, mean, scale, shift);
}

KERNEL batch_norm_inference(idx N, idx C, idx S, idx rows, idx length, idx lanes, idx parts, double eps,
                            const REAL *__restrict__ x, const REAL *__restrict__ gamma, const REAL *__restrict__ beta,
                            const REAL *__restrict__ mean, const REAL *__restrict__ var, REAL *__restrict__ y) {
    const rectangle r = my_rectangle(N, S, rows, length, parts);
    const REAL m = mean[r.c], scale = or_one(gamma, r.c) / sqrt(var[r.c] + (REAL)eps), shift = or_zero(beta, r.c);
    SCALE_RECTANGLE(y, x, m, scale, shift);
}

/* sums (C, parts, 3): of dy, dy d and d, with d = x - mean. */
KERNEL batch_norm_sums(idx N, idx C, idx S, idx rows, idx length, idx lanes, idx parts, const REAL *__restrict__ dy,
                       const REAL *__restrict__ x, const REAL *__restrict__ mean, double *__restrict__ sums) {
    const rectangle r = my_rectangle(N, S, rows, length, parts);
    const REAL m = mean[r.c];
    REAL of_dy = 0, of_products = 0, of_d = 0;
    FOR_RECTANGLE(i) {
        REAL g[4], d[4];
        FOUR(k) g[k] = load(dy, i + k * lanes, end, 0), d[k] = load(x, i + k * lanes, end, m) - m;
        FOUR(k) of_dy += g[k], of_products += g[k] * d[k], of_d += d[k];
    }
    of_dy = group_sum(of_dy), of_products = group_sum(of_products), of_d = group_sum(of_d);
    if (threadIdx.x) return;
    double *of = sums + 3 * (idx)blockIdx.x;
    of[0] = of_dy, of[1] = of_products, of[2] = of_d;
}

/* dx = on_dy dy + on_d (x - mean) + constant: the last two are the paths through the statistics, left out where those are given. */
KERNEL batch_norm_backward(idx N, idx C, idx S, idx rows, idx length, idx lanes, idx parts, idx given, double eps,
                           const REAL *__restrict__ dy, const REAL *__restrict__ x, const REAL *__restrict__ gamma,
                           const REAL *__restrict__ mean, const REAL *__restrict__ var, const double *__restrict__ sums,
                           REAL *__restrict__ dx, REAL *__restrict__ dgamma, REAL *__restrict__ dbeta) {
    __shared__ REAL of_channel[3];   /* on_dy, on_d, constant */
    const rectangle r = my_rectangle(N, S, rows, length, parts);
    if (threadIdx.x < MOST_PARTS) {
        const double *mine = sums + 3 * (r.c * parts + threadIdx.x), m = (double)(N * S), rstd = 1 / sqrt(var[r.c] + eps);
        const bool there = threadIdx.x < parts;
        const double of_dy = over_parts(there ? mine[0] : 0), of_products = over_parts(there ? mine[1] : 0);
        const double of_d = over_parts(there ? mine[2] : 0);
        const double shift = given ? 0 : of_d / m;   /* what rounding the mean left in d */
        const double dg = (of_products - shift * of_dy) * rstd, scale = or_one(gamma, r.c) * rstd;
        const double on_d = given ? 0 : -scale * rstd * dg / m;
        of_channel[0] = (REAL)scale, of_channel[1] = (REAL)on_d;
        of_channel[2] = given ? (REAL)0 : (REAL)(-scale * of_dy / m - on_d * shift);
        if (r.part == 0 && threadIdx.x == 0) dgamma[r.c] = (REAL)dg, dbeta[r.c] = (REAL)of_dy;
    }
    __syncthreads();
    const REAL on_dy = of_channel[0], on_d = of_channel[1], constant = of_channel[2], m = mean[r.c];
    FOR_RECTANGLE(i) {
        REAL g[4], d[4];
        FOUR(k) g[k] = load(dy, i + k * lanes, end, 0), d[k] = given ? (REAL)0 : load(x, i + k * lanes, end, m) - m;
        FOUR(k) if (i + k * lanes < end) dx[i + k * lanes] = on_dy * g[k] + (on_d * d[k] + constant);
    }
}

/* ---- layer norm ---- */

#define FOR_ROW(i) for (idx i = threadIdx.x; i < D; i += 4 * blockDim.x)
#define PLACE(k) (i + k * (idx)blockDim.x)
static __device__ __forceinline__ idx row_number() { return (idx)blockIdx.x * blockDim.y + threadIdx.y; }

KERNEL layer_norm(idx R, idx D, double eps, const REAL *__restrict__ x, const REAL *__restrict__ gamma,
                  const REAL *__restrict__ beta, REAL *__restrict__ y, REAL *__restrict__ mean_out, REAL *__restrict__ rstd_out) {
    const idx row = row_number();
    if (row >= R) return;
    x += row * D, y += row * D;
    REAL mean = x[0], sum = 0, squares = 0;
    FOR_ROW(i) {
        REAL v[4];
        FOUR(k) v[k] = load(x, PLACE(k), D, mean);
        FOUR(k) sum += v[k] - mean;
    }
    mean += group_sum(sum) / (REAL)D;
    sum = 0;
    FOR_ROW(i) {
        REAL d[4];
        FOUR(k) d[k] = load(x, PLACE(k), D, mean) - mean;
        FOUR(k) sum += d[k], squares += d[k] * d[k];
    }
    const REAL rest = group_sum(sum) / (REAL)D, var = group_sum(squares) / (REAL)D - rest * rest;
    const REAL rstd = 1 / sqrt((var < 0 ? (REAL)0 : var) + (REAL)eps);
    FOR_ROW(i) {
        REAL v[4];
        FOUR(k) v[k] = load(x, PLACE(k), D, mean);
        FOUR(k) if (PLACE(k) < D)
            y[PLACE(k)] = (v[k] - mean - rest) * rstd * or_one(gamma, PLACE(k)) + or_zero(beta, PLACE(k));
    }
    if (threadIdx.x == 0) mean_out[row] = mean + rest, rstd_out[row] = rstd;
}

/* dx, and rest (R,): the mean of x - mean, which is what rounding the mean left. */
KERNEL layer_norm_backward(idx R, idx D, const REAL *__restrict__ dy, const REAL *__restrict__ x,
                           const REAL *__restrict__ gamma, const REAL *__restrict__ mean, const REAL *__restrict__ rstd,
                           REAL *__restrict__ dx, REAL *__restrict__ rest_out) {
    const idx row = row_number();
    if (row >= R) return;
    x += row * D, dy += row * D, dx += row * D;
    const REAL m = mean[row], r = rstd[row];
    REAL of_g = 0, of_products = 0, of_d = 0;
    FOR_ROW(i) {
        REAL g[4], d[4];
        FOUR(k) g[k] = load(dy, PLACE(k), D, 0), d[k] = load(x, PLACE(k), D, m) - m;
        if (gamma) FOUR(k) g[k] *= load(gamma, PLACE(k), D, 0);
        FOUR(k) of_g += g[k], of_products += g[k] * d[k], of_d += d[k];
    }
    const REAL rest = group_sum(of_d) / (REAL)D, mean_g = group_sum(of_g) / (REAL)D;
    const REAL mean_products = (group_sum(of_products) / (REAL)D - rest * mean_g) * r;   /* of g xhat */
    FOR_ROW(i) {
        REAL g[4], d[4];
        FOUR(k) g[k] = load(dy, PLACE(k), D, 0), d[k] = load(x, PLACE(k), D, m) - m;
        if (gamma) FOUR(k) g[k] *= load(gamma, PLACE(k), D, 0);
        FOUR(k) if (PLACE(k) < D) dx[PLACE(k)] = (g[k] - mean_g - (d[k] - rest) * r * mean_products) * r;
    }
    if (threadIdx.x == 0) rest_out[row] = rest;
}

/* sums (parts, 2, D): of dy xhat and of dy over a part of the rows. */
KERNEL layer_norm_parameters(idx R, idx D, idx rows_of_part, const REAL *__restrict__ dy, const REAL *__restrict__ x,
                             const REAL *__restrict__ mean, const REAL *__restrict__ rstd, const REAL *__restrict__ rest,
                             REAL *__restrict__ sums) {
    __shared__ REAL of_warp[8][2][32];
    const idx tiles = CEIL_DIV(D, 32), part = divided(blockIdx.x, tiles), i = (blockIdx.x - part * tiles) * 32 + threadIdx.x;
    const idx end = (part + 1) * rows_of_part, last = R < end ? R : end;
    REAL dgamma = 0, dbeta = 0;
    if (i < D)
#pragma unroll 4
        for (idx row = part * rows_of_part + threadIdx.y; row < last; row += blockDim.y) {
            const REAL g = dy[row * D + i];
            dgamma += g * ((x[row * D + i] - mean[row] - rest[row]) * rstd[row]), dbeta += g;
        }
    of_warp[threadIdx.y][0][threadIdx.x] = dgamma, of_warp[threadIdx.y][1][threadIdx.x] = dbeta;
    __syncthreads();
    if (threadIdx.y || i >= D) return;
    for (int warp = 1; warp < (int)blockDim.y; warp++)
        dgamma += of_warp[warp][0][threadIdx.x], dbeta += of_warp[warp][1][threadIdx.x];
    sums[part * 2 * D + i] = dgamma, sums[part * 2 * D + D + i] = dbeta;
}
