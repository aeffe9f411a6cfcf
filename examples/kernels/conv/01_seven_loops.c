/* Seven loops: the definition */

/* 3 x 3, padding 1: x (N, C, H, W), w (F, C, 3, 3) -> y (N, F, H, W) */
void conv(int N, int C, int H, int W, int F, const float *x, const float *w, float *y) {
    for (int n = 0; n < N; n++)
        for (int f = 0; f < F; f++)
            for (int i = 0; i < H; i++)
                for (int j = 0; j < W; j++) {
                    float sum = 0;
                    for (int c = 0; c < C; c++)
                        for (int r = 0; r < 3; r++)
                            for (int s = 0; s < 3; s++) {
                                int h = i + r - 1, v = j + s - 1;
                                if (h < 0 || h >= H || v < 0 || v >= W) continue;   /* the padding is zero */
                                sum += x[((n * C + c) * H + h) * W + v] * w[((f * C + c) * 3 + r) * 3 + s];
                            }
                    y[((n * F + f) * H + i) * W + j] = sum;
                }
}
