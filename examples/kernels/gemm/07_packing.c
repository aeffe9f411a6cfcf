/* Packing: copy the blocks into the order in which the tile reads them */
#include <stdlib.h>
#include "../vector.h"

enum { NR = 2 * VL, MR = (REGISTERS - 4) / 2 };
enum { KC = 512, MC = 12 * MR, NC = 64 * NR };

static void tile(int N, int kc, const float *a, const float *b, float *c, int first) {
    vec x[MR][2] = {{{0}}};
    for (int k = 0; k < kc; k++, a += MR, b += NR) {
        vec b0 = load(b), b1 = load(b + VL);
#pragma GCC unroll 16
        for (int i = 0; i < MR; i++) {
            x[i][0] += a[i] * b0;
            x[i][1] += a[i] * b1;
        }
    }
#pragma GCC unroll 16
    for (int i = 0; i < MR; i++, c += N) {
        store(c, first ? x[i][0] : load(c) + x[i][0]);
        store(c + VL, first ? x[i][1] : load(c + VL) + x[i][1]);
    }
}

/* Panels of MR rows: the MR values of column 0, those of column 1, ... */
static void pack_a(int mc, int kc, int K, const float *a, float *panel) {
    for (int i = 0; i < mc; i += MR, a += MR * K)
        for (int k = 0; k < kc; k++)
            for (int r = 0; r < MR; r++) *panel++ = a[r * K + k];
}

/* Strips of NR columns: the NR values of row 0, those of row 1, ... */
static void pack_b(int kc, int nc, int N, const float *b, float *strip) {
    for (int j = 0; j < nc; j += NR)
        for (int k = 0; k < kc; k++, strip += NR) {
            store(strip, load(b + k * N + j));
            store(strip + VL, load(b + k * N + j + VL));
        }
}

void gemm(int M, int N, int K, const float *a, const float *b, float *c) {
    int rows = M / MR * MR, columns = N / NR * NR;
    float *panels = aligned_alloc(64, sizeof(float) * MC * KC), *strips = aligned_alloc(64, sizeof(float) * KC * NC);
    for (int j0 = 0; j0 < columns; j0 += NC)
        for (int k0 = 0; k0 < K; k0 += KC) {
            int nc = min(NC, columns - j0), kc = min(KC, K - k0);
            pack_b(kc, nc, N, b + k0 * N + j0, strips);
            for (int i0 = 0; i0 < rows; i0 += MC) {
                int mc = min(MC, rows - i0);
                pack_a(mc, kc, K, a + i0 * K + k0, panels);
                for (int j = 0; j < nc; j += NR)
                    for (int i = 0; i < mc; i += MR)
                        tile(N, kc, panels + i * kc, strips + j * kc, c + (i0 + i) * N + j0 + j, k0 == 0);
            }
        }
    free(panels);
    free(strips);
    scalar_piece(rows, N - columns, K, a, K, b + columns, N, c + columns, N);
    scalar_piece(M - rows, N, K, a + rows * K, K, b, N, c + rows * N, N);
}
