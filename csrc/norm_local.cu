/* Normalisations within a neighbourhood. Formulas and adjoints: cnnlib/ops/norm.py.

   Local response norm of x (N, C, S). A thread per number; its neighbours are S apart in memory, and the threads beside it
   read those beside them: every number comes from memory once and from the cache for the other channels.

   Local contrast norm of x (N, C, H, W). One thread per pixel (n, h, w) walks the channels, or one per number where nothing is
   summed. The Gaussian mean is taken along one axis, then along the other: 2 size numbers instead of size^2. Means over an
   image are a block's work. */

#include "cuda.cuh"

/* ---- local response norm ---- */

/* s^-beta: usual exponents by square roots. */
static __device__ __forceinline__ REAL negative_power(REAL s, double beta) {
    if (beta == 0.75) return 1 / (sqrt(s) * sqrt(sqrt(s)));
    if (beta == 0.5) return 1 / sqrt(s);
    if (beta == 1) return 1 / s;
    return pow(s, (REAL)-beta);
}

/* The sum over channels c - before ... c + after of a, at i. */
#define SUM_OF_NEIGHBOURS(sum, j, before, after, term)                                              \
    do {                                                                                            \
        const idx plane = divided(i, S), c = plane - divided(plane, C) * C;                         \
        const idx first = c < (before) ? -c : -(before), last = C - 1 - c < (after) ? C - 1 - c : (after); \
        for (idx o = first; o <= last; o++) {                                                       \
            const idx j = i + o * S;                                                                \
            sum += term;                                                                            \
        }                                                                                           \
    } while (0)

/* each = alpha / size comes from the host: most GPUs have one unit for doubles to 64 for floats. */
KERNEL local_response_norm(idx n, idx C, idx S, idx size, double each, double beta, double k, const REAL *__restrict__ x,
                           REAL *__restrict__ y, REAL *__restrict__ s) {
    const idx i = thread_number();
    if (i >= n) return;
    REAL sum = 0;
    SUM_OF_NEIGHBOURS(sum, j, size / 2, (size - 1) / 2, x[j] * x[j]);
    const REAL base = (REAL)k + (REAL)each * sum;
    s[i] = base, y[i] = x[i] * negative_power(base, beta);
}

/* What every number contributes to its neighbours: dy x s^(-beta - 1). */
KERNEL local_response_norm_inhibition(idx n, double beta, const REAL *__restrict__ dy, const REAL *__restrict__ x,
                                      const REAL *__restrict__ s, REAL *__restrict__ inhibition) {
    const idx i = thread_number();
    if (i < n) inhibition[i] = dy[i] * x[i] * negative_power(s[i], beta) / s[i];
}

KERNEL local_response_norm_backward(idx n, idx C, idx S, idx size, double each, double beta, const REAL *__restrict__ dy,
                                    const REAL *__restrict__ x, const REAL *__restrict__ s,
                                    const REAL *__restrict__ inhibition, REAL *__restrict__ dx) {
    const idx i = thread_number();
    if (i >= n) return;
    REAL sum = 0;
    SUM_OF_NEIGHBOURS(sum, j, (size - 1) / 2, size / 2, inhibition[j]);
    dx[i] = dy[i] * negative_power(s[i], beta) - (REAL)(2 * each * beta) * x[i] * sum;
}

/* ---- local contrast norm: the Gaussian mean ---- */

/* weights: g_o = exp(-(o / sigma)^2 / 2) for o = 0 ... radius, then their sum inside the image at every row and every column. */
KERNEL gaussian(idx H, idx W, idx radius, double sigma, REAL *__restrict__ weights) {
    const idx i = thread_number(), place = i - radius - 1, at = place < H ? place : place - H, size = place < H ? H : W;
    if (i > radius + H + W) return;
    double sum = 0;
    for (idx o = 0; o <= radius; o++) {
        const double g = (REAL)exp(-0.5 * ((double)o / sigma) * ((double)o / sigma));
        if (place < 0) {
            if (o == i) sum = g;
        } else sum += g * (o ? (at - o >= 0) + (at + o < size) : 1);
    }
    weights[i] = (REAL)sum;
}

/* One axis of B, or of its adjoint, of a (N, H, W): B divides by the weights inside after the sum, B^T before it. */
KERNEL blur(idx N, idx H, idx W, idx radius, idx along_rows, idx adjoint, const REAL *__restrict__ weights,
            const REAL *__restrict__ a, REAL *__restrict__ out) {
    const idx i = thread_number();
    if (i >= N * H * W) return;
    const idx line = divided(i, W), step = along_rows ? 1 : W, size = along_rows ? W : H;
    const idx at = along_rows ? i - line * W : line - divided(line, H) * H;
    const REAL *inside = weights + radius + 1 + (along_rows ? H : 0);
    REAL sum = 0;
    for (idx o = -radius; o <= radius; o++)
        if (at + o >= 0 && at + o < size) {
            const REAL v = a[i + o * step];
            sum += weights[o < 0 ? -o : o] * (adjoint ? v / inside[at + o] : v);
        }
    out[i] = adjoint ? sum : sum / inside[at];
}

/* ---- local contrast norm: M = H W pixels an image ---- */

/* The first number of an image is subtracted: it changes nothing, and of a constant image an exact 0 is left. */
KERNEL lcn_channel_mean(idx N, idx C, idx M, const REAL *__restrict__ x, REAL *__restrict__ mean) {
    const idx i = thread_number();
    if (i >= N * M) return;
    const idx n = divided(i, M), first = n * C * M;
    REAL sum = 0;
    for (idx c = 0; c < C; c++) sum += x[first + c * M + i - n * M] - x[first];
    mean[i] = sum / (REAL)C;
}

/* v = x - mean, and the mean of v^2 over the channels. */
KERNEL lcn_centred(idx N, idx C, idx M, const REAL *__restrict__ x, const REAL *__restrict__ mean, REAL *__restrict__ v,
                   REAL *__restrict__ squares) {
    const idx i = thread_number();
    if (i >= N * M) return;
    const idx n = divided(i, M), first = n * C * M;
    REAL sum = 0;
    for (idx c = 0; c < C; c++) {
        const idx j = first + c * M + i - n * M;
        const REAL d = x[j] - x[first] - mean[i];
        v[j] = d, sum += d * d;
    }
    squares[i] = sum / (REAL)C;
}

/* The mean over each image of a, or of its roots, which are then written. A block per image. */
KERNEL lcn_image_mean(idx M, const REAL *__restrict__ a, REAL *__restrict__ roots, REAL *__restrict__ mean) {
    const idx first = blockIdx.x * M;
    REAL sum = 0;
    for (idx i = threadIdx.x; i < M; i += blockDim.x) {
        REAL v = a[first + i];
        if (roots) roots[first + i] = v = sqrt(v);
        sum += v;
    }
    sum = group_sum(sum);
    if (threadIdx.x == 0) mean[blockIdx.x] = sum / (REAL)M;
}

static __device__ __forceinline__ REAL lcn_divisor(REAL mean, REAL deviation, double eps) {
    return larger(larger(mean, deviation), (REAL)eps);
}

KERNEL lcn_divide(idx n, idx C, idx M, double eps, const REAL *__restrict__ v, const REAL *__restrict__ deviation,
                  const REAL *__restrict__ mean, REAL *__restrict__ y) {
    const idx i = thread_number();
    if (i >= n) return;
    const idx image = divided(i, C * M), pixel = i - divided(i, M) * M;
    y[i] = v[i] / lcn_divisor(mean[image], deviation[image * M + pixel], eps);
}

/* The divisor's adjoint, at the one of its three values that it took: the pixel's own deviation, or the image's mean. */
KERNEL lcn_divisor_backward(idx N, idx C, idx M, double eps, const REAL *__restrict__ dy, const REAL *__restrict__ v,
                            const REAL *__restrict__ deviation, const REAL *__restrict__ mean, REAL *__restrict__ local,
                            REAL *__restrict__ whole) {
    const idx i = thread_number();
    if (i >= N * M) return;
    const idx n = divided(i, M), first = n * C * M + i - n * M;
    REAL sum = 0;
    for (idx c = 0; c < C; c++) sum += dy[first + c * M] * v[first + c * M];
    const REAL divisor = lcn_divisor(mean[n], deviation[i], eps), adjoint = -sum / (divisor * divisor);
    const bool is_local = deviation[i] >= mean[n] && deviation[i] >= (REAL)eps;
    local[i] = is_local ? adjoint : (REAL)0;
    whole[i] = !is_local && mean[n] >= (REAL)eps ? adjoint : (REAL)0;
}

/* local = (local + the image's share) / deviation; where that is 0, v is 0, too. */
KERNEL lcn_ratio(idx N, idx M, const REAL *__restrict__ deviation, const REAL *__restrict__ share, REAL *__restrict__ local) {
    const idx i = thread_number();
    if (i >= N * M) return;
    local[i] = deviation[i] > 0 ? (local[i] + share[divided(i, M)]) / deviation[i] : (REAL)0;
}

/* dv, and its sum over the channels. */
KERNEL lcn_centred_backward(idx N, idx C, idx M, double eps, const REAL *__restrict__ dy, const REAL *__restrict__ v,
                            const REAL *__restrict__ deviation, const REAL *__restrict__ mean, const REAL *__restrict__ ratio,
                            REAL *__restrict__ dv, REAL *__restrict__ total) {
    const idx i = thread_number();
    if (i >= N * M) return;
    const idx n = divided(i, M), first = n * C * M + i - n * M;
    const REAL divisor = lcn_divisor(mean[n], deviation[i], eps), of_v = ratio[i] / (REAL)C;
    REAL sum = 0;
    for (idx c = 0; c < C; c++) {
        const idx j = first + c * M;
        const REAL d = dy[j] / divisor + v[j] * of_v;
        dv[j] = d, sum += d;
    }
    total[i] = sum;
}

/* dx = dv - the blurred sum over the channels, / C; in place. */
KERNEL lcn_subtract(idx n, idx C, idx M, const REAL *__restrict__ total, REAL *__restrict__ dx) {
    const idx i = thread_number();
    if (i >= n) return;
    const idx image = divided(i, C * M), pixel = i - divided(i, M) * M;
    dx[i] -= total[image * M + pixel] / (REAL)C;
}
