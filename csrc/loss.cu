/* Cross-entropy of logits (R, C) against labels: formulas and derivation in cnnlib/ops/loss.py.

   A group of threads along x takes a row, a warp for short rows and a block for long ones, as softmax does (activation.cu);
   threads of a group read neighbours. What a row shares, its label, loss and log-sum, one thread reads or writes.

   check_labels looks at all labels in one block, and leaves what a mean divides by: on the host that would mean to wait. Threads
   take every blockDim.x-th label; then their sums add up in a fixed order. A wrong label sets a bit in the error word and becomes
   0, so that nothing outside of an array is read. */

#include "cuda.cuh"

static __device__ __forceinline__ idx row_number() { return (idx)blockIdx.x * blockDim.y + threadIdx.y; }
#define FOR_ROW(c) for (idx c = threadIdx.x; c < C; c += blockDim.x)

static __device__ __forceinline__ idx class_of(idx label, idx C) { return label >= 0 && label < C ? label : 0; }

KERNEL check_labels(idx R, idx C, idx ignoring, idx ignore_index, const idx *__restrict__ labels, const REAL *__restrict__ weight,
                    idx wrong_bit, idx none_bit, word *__restrict__ errors, idx *__restrict__ clean, REAL *__restrict__ count) {
    REAL sum = 0;
    for (idx r = threadIdx.x; r < R; r += blockDim.x) {
        const idx t = labels[r];
        clean[r] = t;
        if (ignoring && t == ignore_index) continue;
        if (class_of(t, C) != t) clean[r] = 0, atomicOr(errors, (word)wrong_bit);
        sum += weight ? weight[class_of(t, C)] : 1;
    }
    sum = group_sum(sum);
    if (threadIdx.x == 0) {
        *count = sum;
        if (sum == 0) atomicOr(errors, (word)none_bit);
    }
}

KERNEL cross_entropy(idx R, idx C, double label_smoothing, idx ignore_index, const REAL *__restrict__ xs,
                     const idx *__restrict__ labels, const REAL *__restrict__ weight, REAL *__restrict__ losses,
                     REAL *__restrict__ lses) {
    const idx row = row_number();
    if (row >= R) return;
    const REAL *x = xs + row * C;
    REAL m = -INFINITE, sum = 0, loss = 0;
    FOR_ROW(c) m = larger(x[c], m);
    m = group_max(m);
    FOR_ROW(c) sum += exp(x[c] - m);
    const REAL log_sum = log(group_sum(sum));
    if (threadIdx.x == 0) lses[row] = m + log_sum;
    if (labels[row] == ignore_index) {
        if (threadIdx.x == 0) losses[row] = 0;
        return;
    }
    const idx t = class_of(labels[row], C);
    loss = (log_sum - (x[t] - m)) * (weight ? weight[t] : 1);   /* lse - x[t], without the rounding of a large m */
    if (label_smoothing != 0) {
        REAL all = 0;
        FOR_ROW(c) all += (log_sum - (x[c] - m)) * (weight ? weight[c] : 1);
        loss = (REAL)(1 - label_smoothing) * loss + (REAL)(label_smoothing / (double)C) * group_sum(all);
    }
    if (threadIdx.x == 0) losses[row] = loss;
}

KERNEL cross_entropy_backward(idx R, idx C, double label_smoothing, idx ignore_index, const REAL *__restrict__ dloss,
                              const REAL *__restrict__ xs, const idx *__restrict__ labels, const REAL *__restrict__ lses,
                              const REAL *__restrict__ weight, REAL *__restrict__ dxs) {
    const idx row = row_number();
    if (row >= R) return;
    const REAL *x = xs + row * C, lse = lses[row], d = dloss[row];
    REAL *dx = dxs + row * C;
    if (labels[row] == ignore_index) {
        FOR_ROW(c) dx[c] = 0;
        return;
    }
    const idx t = class_of(labels[row], C);
    const REAL of_label = (REAL)(1 - label_smoothing) * (weight ? weight[t] : 1);
    const REAL of_all = (REAL)(label_smoothing / (double)C);
    REAL of_softmax = of_label;
    if (of_all != 0) {
        REAL all = 0;
        FOR_ROW(c) all += weight ? weight[c] : 1;
        of_softmax += of_all * group_sum(all);
    }
    FOR_ROW(c) {
        REAL p = exp(x[c] - lse) * of_softmax - of_all * (weight ? weight[c] : 1);
        if (c == t) p -= of_label;
        dx[c] = p * d;
    }
}
