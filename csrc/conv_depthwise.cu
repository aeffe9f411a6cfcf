/* Depthwise convolution: group c is input channel c and its F / C output channels. Formulas and adjoints: cnnlib/ops/conv.py.

   With one input channel a group there is nothing for a matrix product to share, and the few products of an output take less time
   than its way from and to memory. So, plainly: one thread per output pixel, or per pixel of dx, loops over the taps. Neighbouring
   threads have neighbouring pixels and read neighbours; what windows have in common, and the taps, come from the cache.

   The weights' adjoint has few results and long sums. A block per tap: its threads take neighbouring pixels of dy and the pixels
   of x that the tap met, and add up in a fixed order. Few channels leave few blocks, so that the batch is cut into parts, too,
   whose number follows from the shape; sum_of_parts of conv.cu adds them. */

#include "cuda.cuh"

KERNEL depthwise(idx N, idx C, idx H, idx W, idx F, idx OH, idx OW, idx KH, idx KW, idx SH, idx SW, idx top, idx left, idx DH,
                 idx DW, const REAL *__restrict__ x, const REAL *__restrict__ w, const REAL *__restrict__ bias,
                 REAL *__restrict__ y) {
    const idx i = thread_number();
    if (i >= N * F * OH * OW) return;
    const idx plane = divided(i, OH * OW), n = divided(plane, F), f = plane - n * F;
    const digits pixel = digits_of(i - plane * OH * OW, (int)OH, (int)OW);
    x += (n * C + divided(f, divided(F, C))) * H * W, w += f * KH * KW;
    REAL sum = 0;
    for (int kh = 0; kh < KH; kh++)
        for (int kw = 0; kw < KW; kw++) {
            const int h = pixel.b * (int)SH - (int)top + kh * (int)DH, v = pixel.c * (int)SW - (int)left + kw * (int)DW;
            if ((unsigned)h < (unsigned)H && (unsigned)v < (unsigned)W) sum += w[kh * (int)KW + kw] * x[h * (int)W + v];
        }
    y[i] = bias ? sum + bias[f] : sum;
}

KERNEL depthwise_input(idx N, idx C, idx H, idx W, idx F, idx OH, idx OW, idx KH, idx KW, idx SH, idx SW, idx top, idx left,
                       idx DH, idx DW, const REAL *__restrict__ dy, const REAL *__restrict__ w, REAL *__restrict__ dx) {
    const idx i = thread_number();
    if (i >= N * C * H * W) return;
    const idx plane = divided(i, H * W), n = divided(plane, C), c = plane - n * C;
    const digits pixel = digits_of(i - plane * H * W, (int)H, (int)W);
    const int each = (int)divided(F, C);
    REAL sum = 0;
    for (int m = 0; m < each; m++) {
        const idx f = c * each + m;
        const REAL *of_dy = dy + (n * F + f) * OH * OW, *of_w = w + f * KH * KW;
        for (int kh = 0; kh < KH; kh++) {
            const int h = pixel.b + (int)top - kh * (int)DH;   /* SH times the row of dy */
            if (h < 0 || h % (int)SH || h / (int)SH >= OH) continue;
            for (int kw = 0; kw < KW; kw++) {
                const int v = pixel.c + (int)left - kw * (int)DW;
                if (v >= 0 && v % (int)SW == 0 && v / (int)SW < OW)
                    sum += of_w[kh * (int)KW + kw] * of_dy[h / (int)SH * (int)OW + v / (int)SW];
            }
        }
    }
    dx[i] = sum;
}

/* A block per tap of each channel and part of the batch: sums over its images' pixels. dw (parts, F, KH KW). */
KERNEL depthwise_weight(idx N, idx C, idx H, idx W, idx F, idx OH, idx OW, idx KH, idx KW, idx SH, idx SW, idx top, idx left,
                        idx DH, idx DW, idx parts, const REAL *__restrict__ dy, const REAL *__restrict__ x,
                        REAL *__restrict__ dw) {
    const idx taps = F * KH * KW, tap = blockIdx.x % taps, part = blockIdx.x / taps, f = tap / (KH * KW);
    const int down = (int)(tap / KW % KH * DH - top), right = (int)(tap % KW * DW - left);
    const idx images = CEIL_DIV(N, parts), last = N < (part + 1) * images ? N : (part + 1) * images;
    REAL sum = 0;
    for (idx n = part * images; n < last; n++) {
        const REAL *of_dy = dy + (n * F + f) * OH * OW, *of_x = x + (n * C + f / (F / C)) * H * W;
        for (int p = threadIdx.x; p < OH * OW; p += blockDim.x) {
            const int h = p / (int)OW * (int)SH + down, v = p % (int)OW * (int)SW + right;
            if ((unsigned)h < (unsigned)H && (unsigned)v < (unsigned)W) sum += of_dy[p] * of_x[h * (int)W + v];
        }
    }
    sum = group_sum(sum);
    if (threadIdx.x == 0) dw[blockIdx.x] = sum;
}
