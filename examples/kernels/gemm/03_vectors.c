/* Vectors: one instruction works on VL neighbours */
#include "../vector.h"

void gemm(int M, int N, int K, const float *a, const float *b, float *c) {
    int whole = N / VL * VL;
    for (int i = 0; i < M; i++, a += K, c += N) {
        for (int j = 0; j < whole; j += VL) store(c + j, (vec){0});
        for (int k = 0; k < K; k++)
            for (int j = 0; j < whole; j += VL) store(c + j, load(c + j) + a[k] * load(b + k * N + j));
        scalar_piece(1, N - whole, K, a, K, b + whole, N, c + whole, N);
    }
}
