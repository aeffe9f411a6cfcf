/* Activations. Formulas and derivatives: cnnlib/ops/activation.py.

   Element-wise kernels. A block takes 4 * blockDim.x neighbouring elements; its thread t takes t, t + blockDim.x, and so on. The
   32 threads of a warp so read 32 neighbours, which is one transfer of memory, and the four reads of a thread are under way at
   the same time: such a kernel does nothing but wait for memory, and one read per thread would not keep it busy.

   Rows (R, C), softmax and log_softmax. A group of threads along x takes a row; blockDim.y rows share a block. Short rows get a
   warp each, long ones a block: launch parameters are those of rows() in source.py. Threads of a group read neighbours; the row
   is read three times, but only the first time from far away: it stays in the cache.

   Maxout (R, P, S). One thread per output, its neighbours along S, so that each of its P reads is shared with them. */

#include "cuda.cuh"

enum { ELEMENTS = 4 };   /* per thread; elements() in source.py counts on it */

/* name(n, s, a, b, y): y[i] = expression of the numbers a, b and s. Where b is not in the expression, it is not read. */
#define ELEMENTWISE(name, expression)                                                                       \
    KERNEL name(idx n, double setting, const REAL *__restrict__ as, const REAL *__restrict__ bs,            \
                REAL *__restrict__ y) {                                                                     \
        const REAL s = (REAL)setting;                                                                       \
        const idx first = (idx)blockIdx.x * blockDim.x * ELEMENTS + threadIdx.x;                            \
        REAL a_of[ELEMENTS], b_of[ELEMENTS];                                                                \
        _Pragma("unroll") for (int k = 0; k < ELEMENTS; k++) {                                              \
            const idx i = first + k * (idx)blockDim.x;                                                      \
            if (i < n) a_of[k] = as[i], b_of[k] = bs[i];                                                    \
        }                                                                                                   \
        _Pragma("unroll") for (int k = 0; k < ELEMENTS; k++) {                                              \
            const idx i = first + k * (idx)blockDim.x;                                                      \
            if (i < n) {                                                                                    \
                const REAL a = a_of[k], b = b_of[k];                                                        \
                (void)a, (void)b, (void)s;                                                                  \
                y[i] = expression;                                                                          \
            }                                                                                               \
        }                                                                                                   \
    }

/* e^-|x| lies in 0 ... 1: no overflow. NaN comes through. */
static __device__ __forceinline__ REAL sigmoid_of(REAL x) {
    const REAL e = exp(-fabs(x));
    return (x > 0 ? 1 : e) / (1 + e);
}

ELEMENTWISE(relu, larger(a, 0))
ELEMENTWISE(relu_backward, b > 0 ? a : 0)
ELEMENTWISE(leaky_relu, a > 0 ? a : s * a)
ELEMENTWISE(leaky_relu_backward, b > 0 ? a : s * a)
ELEMENTWISE(elu, a > 0 ? a : s * expm1(a))
ELEMENTWISE(elu_backward, b > 0 ? a : a * (s * exp(b)))
ELEMENTWISE(softplus, larger(a, 0) + log1p(exp(-fabs(a))))
ELEMENTWISE(softplus_backward, a * sigmoid_of(b))
ELEMENTWISE(sigmoid, sigmoid_of(a))
ELEMENTWISE(sigmoid_backward, a * (b * (1 - b)))
ELEMENTWISE(tanh_activation, tanh(a))
ELEMENTWISE(tanh_activation_backward, a * (1 - b * b))

/* ---- rows ---- */

static __device__ __forceinline__ idx row_number() { return (idx)blockIdx.x * blockDim.y + threadIdx.y; }
#define FOR_ROW(c) for (idx c = threadIdx.x; c < C; c += blockDim.x)

static __device__ REAL row_max(const REAL *x, idx C) {
    REAL m = -INFINITE;
    FOR_ROW(c) m = larger(x[c], m);
    return group_max(m);
}

KERNEL softmax(idx R, idx C, const REAL *__restrict__ xs, REAL *__restrict__ ys) {
    if (row_number() >= R) return;
    const REAL *x = xs + row_number() * C;
    REAL *y = ys + row_number() * C, sum = 0;
    const REAL m = row_max(x, C);
    FOR_ROW(c) sum += exp(x[c] - m);
    sum = group_sum(sum);
    FOR_ROW(c) y[c] = exp(x[c] - m) / sum;
}
KERNEL softmax_backward(idx R, idx C, const REAL *__restrict__ dys, const REAL *__restrict__ ys, REAL *__restrict__ dxs) {
    if (row_number() >= R) return;
    const REAL *dy = dys + row_number() * C, *y = ys + row_number() * C;
    REAL *dx = dxs + row_number() * C, sum = 0;
    FOR_ROW(c) sum += dy[c] * y[c];
    sum = group_sum(sum);
    FOR_ROW(c) dx[c] = y[c] * (dy[c] - sum);
}

KERNEL log_softmax(idx R, idx C, const REAL *__restrict__ xs, REAL *__restrict__ ys) {
    if (row_number() >= R) return;
    const REAL *x = xs + row_number() * C;
    REAL *y = ys + row_number() * C, sum = 0;
    const REAL m = row_max(x, C);
    FOR_ROW(c) sum += exp(x[c] - m);
    const REAL log_sum = log(group_sum(sum));
    FOR_ROW(c) y[c] = (x[c] - m) - log_sum;
}
KERNEL log_softmax_backward(idx R, idx C, const REAL *__restrict__ dys, const REAL *__restrict__ ys, REAL *__restrict__ dxs) {
    if (row_number() >= R) return;
    const REAL *dy = dys + row_number() * C, *y = ys + row_number() * C;
    REAL *dx = dxs + row_number() * C, sum = 0;
    FOR_ROW(c) sum += dy[c];
    sum = group_sum(sum);
    FOR_ROW(c) dx[c] = dy[c] - exp(y[c]) * sum;
}

/* ---- maxout: (R, P, S) -> (R, S) ---- */

KERNEL maxout(idx R, idx P, idx S, const REAL *__restrict__ xs, REAL *__restrict__ y, byte *__restrict__ argmax) {
    const idx i = thread_number();
    if (i >= R * S) return;
    const idx r = divided(i, S);
    const REAL *x = xs + r * P * S + (i - r * S);
    REAL best = x[0];
    int winner = 0;
    for (int p = 1; p < P; p++) {
        const REAL v = x[p * S];
        if (!(v <= best) && best == best) best = v, winner = p;   /* the first NaN wins */
    }
    y[i] = best, argmax[i] = (byte)winner;
}
KERNEL maxout_backward(idx R, idx P, idx S, const REAL *__restrict__ dy, const byte *__restrict__ argmax, REAL *__restrict__ dxs) {
    const idx i = thread_number();
    if (i >= R * S) return;
    const idx r = divided(i, S);
    REAL *dx = dxs + r * P * S + (i - r * S);
    for (int p = 0; p < P; p++) dx[p * S] = argmax[i] == p ? dy[i] : 0;
}
