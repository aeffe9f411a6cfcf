/* Blocking: work on blocks that stay in the caches until they are done */
#include "../vector.h"

enum { NR = 2 * VL, MR = (REGISTERS - 4) / 2 };
enum { KC = 512, MC = 12 * MR };

/* C = or += A B for a tile of C and kc of the K steps. */
static void tile(int N, int K, int kc, const float *a, const float *b, float *c, int first) {
    vec x[MR][2] = {{{0}}};
    for (int k = 0; k < kc; k++) {
        vec b0 = load(b + k * N), b1 = load(b + k * N + VL);
#pragma GCC unroll 16
        for (int i = 0; i < MR; i++) {
            x[i][0] += a[i * K + k] * b0;
            x[i][1] += a[i * K + k] * b1;
        }
    }
#pragma GCC unroll 16
    for (int i = 0; i < MR; i++, c += N) {
        store(c, first ? x[i][0] : load(c) + x[i][0]);
        store(c + VL, first ? x[i][1] : load(c + VL) + x[i][1]);
    }
}

void gemm(int M, int N, int K, const float *a, const float *b, float *c) {
    int rows = M / MR * MR, columns = N / NR * NR;
    for (int k0 = 0; k0 < K; k0 += KC)
        for (int i0 = 0; i0 < rows; i0 += MC)   /* MC x KC of A: half of the L2 cache */
            for (int j = 0; j < columns; j += NR)   /* KC x NR of B: read again for each tile of this block */
                for (int i = i0; i < min(i0 + MC, rows); i += MR)
                    tile(N, K, min(KC, K - k0), a + i * K + k0, b + k0 * N + j, c + i * N + j, k0 == 0);
    scalar_piece(rows, N - columns, K, a, K, b + columns, N, c + columns, N);
    scalar_piece(M - rows, N, K, a + rows * K, K, b, N, c + rows * N, N);
}
