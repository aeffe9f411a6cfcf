/* Rows: a tap multiplies whole rows of the image, in vectors */
#include <string.h>
#include "../vector.h"

/* y[j] += w x[j] for n neighbours */
static void add_row(int n, float w, const float *x, float *y) {
    int j = 0;
    for (; j + VL <= n; j += VL) store(y + j, load(y + j) + w * load(x + j));
    for (; j < n; j++) y[j] += w * x[j];
}

void conv(int N, int C, int H, int W, int F, const float *x, const float *w, float *y) {
    memset(y, 0, sizeof(float) * N * F * H * W);
    for (int n = 0; n < N; n++)
        for (int f = 0; f < F; f++)
            for (int c = 0; c < C; c++)
                for (int r = 0; r < 3; r++)
                    for (int s = 0; s < 3; s++) {
                        float tap = w[((f * C + c) * 3 + r) * 3 + s];
                        int left = s == 0, right = s == 2;   /* output columns whose input lies in the padding */
                        for (int i = r == 0; i < H - (r == 2); i++)
                            add_row(W - left - right, tap, x + ((n * C + c) * H + i + r - 1) * W + left + s - 1,
                                    y + ((n * F + f) * H + i) * W + left);
                    }
}
