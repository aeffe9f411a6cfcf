/* The windows of a convolution written down, so that cuBLAS can multiply, and the adjoint of that. Formulas: cnnlib/ops/conv.py.

   cols (C KH KW, N OH OW): column q holds what output pixel q sees of the image, row (c, kh, kw) what tap (kh, kw) of channel c
   meets. A thread per output pixel and channel works out where its window lies, and walks its taps; neighbouring threads have
   neighbouring columns, so that a warp writes 32 neighbours of a row at a time and reads neighbours of the image, at stride 1.

   Backward, a pixel of dx collects from all windows that cover it, by a thread of its own: nobody else writes there, nothing
   has to be added atomically, and the order is that of the taps. */

#include "cuda.cuh"

KERNEL windows(idx N, idx C, idx H, idx W, idx OH, idx OW, idx KH, idx KW, idx SH, idx SW, idx top, idx left, idx DH, idx DW,
               const REAL *__restrict__ x, REAL *__restrict__ cols) {
    const idx columns = N * OH * OW, blocks = CEIL_DIV(columns, blockDim.x);
    const idx c = divided(blockIdx.x, blocks), q = (blockIdx.x - c * blocks) * blockDim.x + threadIdx.x;
    if (q >= columns) return;
    const digits pixel = digits_of(q, (int)OH, (int)OW);
    const int top_row = pixel.b * (int)SH - (int)top, left_column = pixel.c * (int)SW - (int)left;
    x += (pixel.a * C + c) * H * W, cols += c * KH * KW * columns + q;
    for (int kh = 0; kh < KH; kh++)
        for (int kw = 0; kw < KW; kw++, cols += columns) {
            const int h = top_row + kh * (int)DH, v = left_column + kw * (int)DW;
            *cols = (unsigned)h < (unsigned)H && (unsigned)v < (unsigned)W ? x[h * (int)W + v] : (REAL)0;
        }
}

KERNEL windows_backward(idx N, idx C, idx H, idx W, idx OH, idx OW, idx KH, idx KW, idx SH, idx SW, idx top, idx left, idx DH,
                        idx DW, const REAL *__restrict__ dcols, REAL *__restrict__ dx) {
    const idx i = thread_number();
    if (i >= N * C * H * W) return;
    const idx plane = divided(i, H * W), n = divided(plane, C), c = plane - n * C;
    const digits pixel = digits_of(i - plane * H * W, (int)H, (int)W);
    REAL sum = 0;
    for (int kh = 0; kh < KH; kh++) {
        const int h = pixel.b + (int)top - kh * (int)DH;
        if (h < 0 || h % (int)SH || h / (int)SH >= OH) continue;
        for (int kw = 0; kw < KW; kw++) {
            const int v = pixel.c + (int)left - kw * (int)DW;
            if (v >= 0 && v % (int)SW == 0 && v / (int)SW < OW)
                sum += dcols[((c * KH + kh) * KW + kw) * (N * OH * OW) + (n * OH + h / (int)SH) * OW + v / (int)SW];
        }
    }
    dx[i] = sum;
}
