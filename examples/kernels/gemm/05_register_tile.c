/* Register tile: an MR x NR piece of C stays in registers for all k */
#include "../vector.h"

enum { NR = 2 * VL, MR = (REGISTERS - 4) / 2 };   /* 14 x 32 on AVX-512, 6 x 16 on AVX2 */

static void tile(int N, int K, const float *a, const float *b, float *c) {
    vec x[MR][2] = {{{0}}};
    for (int k = 0; k < K; k++) {
        vec b0 = load(b + k * N), b1 = load(b + k * N + VL);
#pragma GCC unroll 16
        for (int i = 0; i < MR; i++) {
            x[i][0] += a[i * K + k] * b0;
            x[i][1] += a[i * K + k] * b1;
        }
    }
#pragma GCC unroll 16
    for (int i = 0; i < MR; i++) {
        store(c + i * N, x[i][0]);
        store(c + i * N + VL, x[i][1]);
    }
}

void gemm(int M, int N, int K, const float *a, const float *b, float *c) {
    int rows = M / MR * MR, columns = N / NR * NR;
    for (int j = 0; j < columns; j += NR)
        for (int i = 0; i < rows; i += MR) tile(N, K, a + i * K, b + j, c + i * N + j);
    scalar_piece(rows, N - columns, K, a, K, b + columns, N, c + columns, N);
    scalar_piece(M - rows, N, K, a + rows * K, K, b, N, c + rows * N, N);
}
