/* Embedding: rows of w (V, D) picked by index; formulas in cnnlib/ops/embedding.py.

   embedding. A block copies ELEMENTS * blockDim.x neighbouring elements of y, its thread t those at t, t + blockDim.x, and so on: a
   warp copies 32 neighbours, and a thread has read all of its elements before it writes the first. An index outside of w sets a
   bit in the error word, and row 0 is read.

   The adjoint adds the rows of dy that have one index, in their order. So the rows are sorted by index first, by a radix sort
   that leaves equal ones in their order: one pass per eight bits of an index, from the lowest. Of a pass:

       digit_counts    a block of TILE threads, a row each, counts how often each digit occurs in its tile
       digit_offsets   one block turns counts[digit][tile] into where that tile's first row of that digit goes: sums of all
                       before, first over digits, then over tiles. Thread t sums a stretch of neighbours; then all stretches before
                       its own; then it goes through its stretch once more
       digit_scatter   again a row per thread: it goes to that place, plus the number of threads before it that have its digit.
                       They all read one shared array from its start, the same place at a time

   No atomics decide an order, and the number of launches depends on shapes only, so that a graph can record them.

   embedding_backward. A row of dw is a warp's (of rows below 32, a part of a warp does): it looks where the rows of its index begin
   and end in the sorted ones, by bisection, and its threads add neighbours of these rows up. Rows nobody picked become 0. */

#include "cuda.cuh"

enum { ELEMENTS = 4, TILE = 256, DIGITS = 256 };   /* as embedding.py has them; a thread has a digit, too: TILE is DIGITS */

KERNEL embedding(idx R, idx D, idx V, const idx *__restrict__ indices, const REAL *__restrict__ w, REAL *__restrict__ y,
                 idx wrong_bit, word *__restrict__ errors) {
    const idx first = (idx)blockIdx.x * blockDim.x * ELEMENTS + threadIdx.x;
    REAL read[ELEMENTS];
    _Pragma("unroll") for (int k = 0; k < ELEMENTS; k++) {
        const idx i = first + k * (idx)blockDim.x, r = divided(i, D), d = i - r * D;
        if (i >= R * D) break;
        const idx v = indices[r];
        const bool exists = v >= 0 && v < V;
        if (!exists && d == 0) atomicOr(errors, (word)wrong_bit);
        read[k] = w[(exists ? v : 0) * D + d];
    }
    _Pragma("unroll") for (int k = 0; k < ELEMENTS; k++) {
        const idx i = first + k * (idx)blockDim.x;
        if (i < R * D) y[i] = read[k];
    }
}

/* Rows without an index of w come last, as if they had index V. */
static __device__ __forceinline__ idx index_of(const idx *indices, idx row, idx V) {
    const idx v = indices[row];
    return v >= 0 && v < V ? v : V;
}

/* order: the rows as the pass before left them, or NULL before the first. */
static __device__ __forceinline__ int digit_of(const idx *indices, idx row, idx V, idx shift) {
    return (int)(index_of(indices, row, V) >> shift & (DIGITS - 1));
}

KERNEL digit_counts(idx R, idx V, idx shift, const idx *__restrict__ indices, const idx *__restrict__ order, idx *__restrict__ counts) {
    __shared__ int count[DIGITS];
    const idx i = thread_number();
    count[threadIdx.x] = 0;
    __syncthreads();
    if (i < R) atomicAdd(&count[digit_of(indices, order ? order[i] : i, V, shift)], 1);
    __syncthreads();
    counts[threadIdx.x * (idx)gridDim.x + blockIdx.x] = count[threadIdx.x];
}

KERNEL digit_offsets(idx n, idx *__restrict__ counts) {
    __shared__ idx sum_of[1024];
    const idx length = CEIL_DIV(n, (idx)blockDim.x), begin = min(n, threadIdx.x * length), end = min(n, begin + length);
    idx sum = 0;
    for (idx i = begin; i < end; i++) sum += counts[i];
    sum_of[threadIdx.x] = sum;
    __syncthreads();
    sum = 0;
    for (int thread = 0; thread < (int)threadIdx.x; thread++) sum += sum_of[thread];
    for (idx i = begin; i < end; i++) {
        const idx here = counts[i];
        counts[i] = sum;
        sum += here;
    }
}

KERNEL digit_scatter(idx R, idx V, idx shift, const idx *__restrict__ indices, const idx *__restrict__ order,
                     const idx *__restrict__ offsets, idx *__restrict__ sorted) {
    __shared__ int digit[TILE];
    const idx i = thread_number(), row = i < R && order ? order[i] : i;
    const int mine = i < R ? digit_of(indices, row, V, shift) : -1;
    digit[threadIdx.x] = mine;
    __syncthreads();
    if (i >= R) return;
    idx place = offsets[mine * (idx)gridDim.x + blockIdx.x];
    for (int thread = 0; thread < (int)threadIdx.x; thread++) place += digit[thread] == mine;
    sorted[place] = row;
}

/* Where in the sorted rows those of index v begin. */
static __device__ idx first_place(const idx *indices, const idx *sorted, idx R, idx V, idx v) {
    idx begin = 0, end = R;   /* it lies in begin ... end */
    while (begin < end) {
        const idx middle = (begin + end) / 2;
        if (index_of(indices, sorted[middle], V) < v) begin = middle + 1;
        else end = middle;
    }
    return begin;
}

KERNEL embedding_backward(idx R, idx D, idx V, const REAL *__restrict__ dy, const idx *__restrict__ indices,
                          const idx *__restrict__ sorted, REAL *__restrict__ dw) {
    const idx v = (idx)blockIdx.x * blockDim.y + threadIdx.y;
    if (v >= V) return;
    const idx begin = first_place(indices, sorted, R, V, v), end = first_place(indices, sorted, R, V, v + 1);
    for (idx d = threadIdx.x; d < D; d += blockDim.x) {
        REAL sum = 0;
        for (idx place = begin; place < end; place++) sum += dy[sorted[place] * D + d];
        dw[v * D + d] = sum;
    }
}
