/* im2col: patches in columns turn it into a matrix product */
#include "../gemm/08_edges.c"

/* Row (c, r, s) of the patches is channel c, moved by (r - 1, s - 1). */
static void im2col(int C, int H, int W, const float *x, float *patches) {
    for (int c = 0; c < C; c++)
        for (int r = 0; r < 3; r++)
            for (int s = 0; s < 3; s++)
                for (int i = 0; i < H; i++, patches += W) {
                    int h = i + r - 1, left = s == 0, right = s == 2;
                    if (h < 0 || h >= H) {
                        memset(patches, 0, sizeof(float) * W);
                        continue;
                    }
                    patches[0] = patches[W - 1] = 0;
                    for (int j = left; j < W - right; j++) patches[j] = x[(c * H + h) * W + j + s - 1];
                }
}

/* Per image: weights (F, 9 C) times patches (9 C, H W). */
void conv(int N, int C, int H, int W, int F, const float *x, const float *w, float *y) {
    float *patches = malloc(sizeof(float) * 9 * C * H * W);
    for (int n = 0; n < N; n++) {
        im2col(C, H, W, x + n * C * H * W, patches);
        gemm(F, H * W, 9 * C, w, patches, y + n * F * H * W);
    }
    free(patches);
}
