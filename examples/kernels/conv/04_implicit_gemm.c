/* Implicit GEMM: patches are packed from the image, strip by strip */
#include "../gemm/08_edges.c"

/* An image with a frame of zeros: every tap of every pixel is inside. */
static void pad(int C, int H, int W, const float *x, float *padded) {
    memset(padded, 0, sizeof(float) * C * (H + 2) * (W + 2));
    for (int c = 0; c < C; c++)
        for (int h = 0; h < H; h++)
            memcpy(padded + (c * (H + 2) + h + 1) * (W + 2) + 1, x + (c * H + h) * W, sizeof(float) * W);
}

/* Rows k0 .. k0 + kc of the patches of n pixels from `pixel` on. Their part of an image row is contiguous in the padded image.
   Whole vectors are copied: what is too much is overwritten by the next part or row, or is not used. */
static void pack_patches(int k0, int kc, int pixel, int n, int H, int W, const float *padded, float *strip) {
    for (int k = k0; k < k0 + kc; k++, strip += NR) {
        const float *tap = padded + (k / 9 * (H + 2) + k / 3 % 3) * (W + 2) + k % 3;
        for (int p = pixel, length; p < pixel + n; p += length) {
            length = min(W - p % W, pixel + n - p);
            for (int j = 0; j < length; j += VL) store(strip + p - pixel + j, load(tap + p / W * (W + 2) + p % W + j));
        }
    }
}

void conv(int N, int C, int H, int W, int F, const float *x, const float *w, float *y) {
    int K = 9 * C, pixels = H * W;
    int count = (F + MR - 1) / MR, height = (F + count - 1) / count;
    int blocks = (K + KC - 1) / KC, most = (K + blocks - 1) / blocks;
    float *padded = calloc((size_t)C * (H + 2) * (W + 2) + VL, sizeof(float));
    float *panels = malloc(sizeof(float) * F * K), *strip = malloc(sizeof(float) * (NR * most + VL));
    for (int k0 = 0; k0 < K; k0 += most) pack_a(F, min(most, K - k0), K, height, w + k0, panels + F * k0);
    for (int n = 0; n < N; n++, x += C * pixels, y += F * pixels) {
        pad(C, H, W, x, padded);
        for (int k0 = 0; k0 < K; k0 += most)
            for (int p = 0; p < pixels; p += NR) {
                int kc = min(most, K - k0), wide = min(NR, pixels - p);
                pack_patches(k0, kc, p, wide, H, W, padded, strip);
                for (int f = 0; f < F; f += height) {
                    const float *panel = panels + F * k0 + f * kc;
                    if (wide == NR) tile_of_height(min(height, F - f), kc, panel, strip, y + f * pixels + p, pixels, k0 == 0);
                    else narrow_tile(min(height, F - f), wide, kc, panel, strip, y + f * pixels + p, pixels, k0 == 0);
                }
            }
    }
    free(padded);
    free(panels);
    free(strip);
}
