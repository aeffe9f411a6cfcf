/* Loop order: the inner loop walks along rows */

void gemm(int M, int N, int K, const float *a, const float *b, float *c) {
    for (int i = 0; i < M; i++) {
        for (int j = 0; j < N; j++) c[i * N + j] = 0;
        for (int k = 0; k < K; k++)
            for (int j = 0; j < N; j++) c[i * N + j] += a[i * K + k] * b[k * N + j];
    }
}
