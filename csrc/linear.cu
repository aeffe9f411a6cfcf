/* Sums over the rows of a matrix: the bias' adjoint db_o = sum over r of dy_ro. The products of a linear layer are cuBLAS's.

   A block is 32 threads wide, one column each, so that a warp reads 32 neighbours of a row; its 8 warps take every 8th row of
   their part of the rows, add their sums up in shared memory, and leave a row of partial sums. A second launch of the same kernel
   adds those. Where each row goes follows from the shape alone: equal bits from run to run. */

#include "cuda.cuh"

enum { WARPS = 8 };

/* dy (R, C) -> sums (parts, C); blocks are numbered (part, tile of 32 columns). */
KERNEL column_sums(idx R, idx C, idx rows_of_part, const REAL *__restrict__ dy, REAL *__restrict__ sums) {
    __shared__ REAL of_warp[WARPS][32];
    const idx tiles = CEIL_DIV(C, 32), part = divided(blockIdx.x, tiles), c = (blockIdx.x - part * tiles) * 32 + threadIdx.x;
    const idx end = (part + 1) * rows_of_part, last = R < end ? R : end;
    REAL sum = 0;
    if (c < C)
#pragma unroll 4   /* reads on their way at the same time */
        for (idx r = part * rows_of_part + threadIdx.y; r < last; r += WARPS) sum += dy[r * C + c];
    of_warp[threadIdx.y][threadIdx.x] = sum;
    __syncthreads();
    if (threadIdx.y || c >= C) return;
    for (int warp = 1; warp < WARPS; warp++) sum += of_warp[warp][threadIdx.x];
    sums[part * C + c] = sum;
}
