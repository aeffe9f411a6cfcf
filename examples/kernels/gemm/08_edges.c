/* Edges: a tile for every height, strips filled up with zeros */
#include <stdlib.h>
#include <string.h>
#include "../vector.h"

enum { NR = 2 * VL, MR = (REGISTERS - 4) / 2 };
enum { KC = 512, MC = 12 * MR, NC = 64 * NR };

/* Inlined with a constant m, the loops unroll and x lives in registers. */
static inline __attribute__((always_inline)) void tile(const int m, int kc, const float *a, const float *b, float *c, int N,
                                                       int first) {
    vec x[MR][2] = {{{0}}};
    for (int k = 0; k < kc; k++, a += m, b += NR) {
        vec b0 = load(b), b1 = load(b + VL);
#pragma GCC unroll 16
        for (int i = 0; i < m; i++) {
            x[i][0] += a[i] * b0;
            x[i][1] += a[i] * b1;
        }
    }
#pragma GCC unroll 16
    for (int i = 0; i < m; i++, c += N) {
        store(c, first ? x[i][0] : load(c) + x[i][0]);
        store(c + VL, first ? x[i][1] : load(c + VL) + x[i][1]);
    }
}

#define HEIGHT(m) case m: tile(m, kc, a, b, c, N, first); break;
static void tile_of_height(int m, int kc, const float *a, const float *b, float *c, int N, int first) {
    switch (m) {
        HEIGHT(1) HEIGHT(2) HEIGHT(3) HEIGHT(4) HEIGHT(5) HEIGHT(6)
#if REGISTERS == 32
        HEIGHT(7) HEIGHT(8) HEIGHT(9) HEIGHT(10) HEIGHT(11) HEIGHT(12) HEIGHT(13) HEIGHT(14)
#endif
    }
}

/* The last strip has only n columns in C: its tiles take the way over a small one. */
static void narrow_tile(int m, int n, int kc, const float *a, const float *b, float *c, int N, int first) {
    float t[MR * NR];
    tile_of_height(m, kc, a, b, t, NR, 1);
    for (int i = 0; i < m; i++)
        for (int j = 0; j < n; j++) c[i * N + j] = first ? t[i * NR + j] : c[i * N + j] + t[i * NR + j];
}

static void pack_a(int mc, int kc, int K, int height, const float *a, float *panel) {
    for (int i = 0; i < mc; i += height, a += height * K)
        for (int k = 0; k < kc; k++)
            for (int r = 0; r < min(height, mc - i); r++) *panel++ = a[r * K + k];
}

static void pack_b(int kc, int nc, int N, const float *b, float *strip) {
    for (int j = 0; j < nc; j += NR)
        for (int k = 0; k < kc; k++, strip += NR) {
            int n = min(NR, nc - j);
            memcpy(strip, b + k * N + j, sizeof(float) * n);
            memset(strip + n, 0, sizeof(float) * (NR - n));
        }
}

/* Columns [begin, end) of C. */
static void gemm_columns(int M, int N, int K, const float *a, const float *b, float *c, int begin, int end) {
    int count = (M + MR - 1) / MR, height = (M + count - 1) / count;   /* 16 rows: 8 + 8, not 14 + 2 */
    int block = MC / height * height;
    float *panels = aligned_alloc(64, sizeof(float) * MC * KC), *strips = aligned_alloc(64, sizeof(float) * KC * NC);
    for (int j0 = begin; j0 < end; j0 += NC)
        for (int k0 = 0; k0 < K; k0 += KC) {
            int nc = min(NC, end - j0), kc = min(KC, K - k0);
            pack_b(kc, nc, N, b + k0 * N + j0, strips);
            for (int i0 = 0; i0 < M; i0 += block) {
                int mc = min(block, M - i0);
                pack_a(mc, kc, K, height, a + i0 * K + k0, panels);
                for (int j = 0; j < nc; j += NR)
                    for (int i = 0; i < mc; i += height) {
                        int m = min(height, mc - i), n = min(NR, nc - j);
                        float *at = c + (i0 + i) * N + j0 + j;
                        if (n == NR) tile_of_height(m, kc, panels + i * kc, strips + j * kc, at, N, k0 == 0);
                        else narrow_tile(m, n, kc, panels + i * kc, strips + j * kc, at, N, k0 == 0);
                    }
            }
        }
    free(panels);
    free(strips);
}

void gemm(int M, int N, int K, const float *a, const float *b, float *c) { gemm_columns(M, N, K, a, b, c, 0, N); }
