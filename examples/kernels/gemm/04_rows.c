/* Rows: each vector of B serves R rows of C */
#include "../vector.h"

enum { R = 2 };

void gemm(int M, int N, int K, const float *a, const float *b, float *c) {
    int rows = M / R * R, whole = N / VL * VL;
    for (int i = 0; i < rows; i += R, a += R * K, c += R * N) {
        for (int r = 0; r < R; r++)
            for (int j = 0; j < whole; j += VL) store(c + r * N + j, (vec){0});
        for (int k = 0; k < K; k++)
            for (int j = 0; j < whole; j += VL) {
                vec b_kj = load(b + k * N + j);
#pragma GCC unroll 16
                for (int r = 0; r < R; r++) store(c + r * N + j, load(c + r * N + j) + a[r * K + k] * b_kj);
            }
        scalar_piece(R, N - whole, K, a, K, b + whole, N, c + whole, N);
    }
    scalar_piece(M - rows, N, K, a, K, b, N, c, N);
}
