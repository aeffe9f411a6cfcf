/* Convolutions with few output channels, which read the padded image in place: no patch is packed. Part of conv.c. */

/* ---- tiles of several rows ---- */

/* y (m channels, ldy apart, x `rows` rows of n pixels, y_row apart) = bias + weights (m per k) times the pixels of a row that
   begin at image[offset[k]], the next row `pitch` further on. m and rows are constants where this is inlined. */
INLINE void rows_tile(const int m, const int rows, const int vectors, idx K, const REAL *restrict weights,
                      const REAL *restrict image, idx pitch, const idx *restrict offset, const REAL *bias, REAL *restrict y,
                      idx ldy, idx y_row, idx n, int accumulate) {
    vr sum[MOST_ROWS][MR][NV];
#pragma GCC unroll 4
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 16
        for (int i = 0; i < m; i++) sum[r][i][0] = sum[r][i][1] = bias ? broadcast(bias[i]) : (vr){0};
    for (idx k = 0; k < K; k++, weights += m) {
        const REAL *b = image + offset[k];
        vr w[MR];
#pragma GCC unroll 16
        for (int i = 0; i < m; i++) w[i] = broadcast(weights[i]);
#pragma GCC unroll 4
        for (int r = 0; r < rows; r++, b += pitch) {
            if (MR > 6 && vectors > 1) {
                vr b0 = load(b), b1 = load(b + VL);
                hold(b0);
                hold(b1);
#pragma GCC unroll 16
                for (int i = 0; i < m; i++) sum[r][i][0] += w[i] * b0, sum[r][i][1] += w[i] * b1;
                continue;
            }
#pragma GCC unroll 2
            for (int v = 0; v < vectors; v++) {   /* of 16 registers, 12 are sums and 3 weights: one is left */
                vr pixels = load(b + v * VL);
                hold(pixels);
#pragma GCC unroll 16
                for (int i = 0; i < m; i++) sum[r][i][v] += w[i] * pixels;
            }
        }
    }
#pragma GCC unroll 4
    for (int r = 0; r < rows; r++, y += y_row)
#pragma GCC unroll 16
        for (int i = 0; i < m; i++) {
            REAL *d = y + i * ldy;
            store_part(d, accumulate ? load_part(d, n) + sum[r][i][0] : sum[r][i][0], n);
            if (n > VL) store_part(d + VL, accumulate ? load_part(d + VL, n - VL) + sum[r][i][1] : sum[r][i][1], n - VL);
        }
}

typedef void (*rows_kernel)(idx K, const REAL *weights, const REAL *image, idx pitch, const idx *offset, const REAL *bias,
                            REAL *y, idx ldy, idx y_row, idx n, int accumulate);
#define CHANNELS(m) \
    static void rows_tile_##m(idx K, const REAL *weights, const REAL *image, idx pitch, const idx *offset, const REAL *bias, \
                              REAL *y, idx ldy, idx y_row, idx n, int accumulate) { \
        if (n > VL) rows_tile(m, ROWS_OF(m), 2, K, weights, image, pitch, offset, bias, y, ldy, y_row, n, accumulate); \
        else rows_tile(m, ROWS_OF(m), 1, K, weights, image, pitch, offset, bias, y, ldy, y_row, n, accumulate); \
    }
CHANNELS(1) CHANNELS(2) CHANNELS(3)
#if MR > 6
CHANNELS(4) CHANNELS(5) CHANNELS(6)
#endif
#if MR > 12
CHANNELS(7)
#endif
static const rows_kernel rows_kernels[] = {
    NULL, rows_tile_1, rows_tile_2, rows_tile_3,
#if MR > 6
    rows_tile_4, rows_tile_5, rows_tile_6,
#endif
#if MR > 12
    rows_tile_7,
#endif
};

/* ---- chain by chain ---- */

static void rows_in_chains(idx m, idx K, const REAL *weights, const REAL *image, idx pitch, const idx *offset, const REAL *bias,
                           REAL *y, idx ldy, idx y_row, idx n) {
    const idx chain = chain_of(K);
    for (idx k = 0; k == 0 || k < K; k += chain)
        rows_kernels[m](MIN(chain, K - k), weights + k * m, image, pitch, offset + k, k ? NULL : bias, y, ldy, y_row, n, k > 0);
}

static void several_chains(idx m, idx n, idx K, const REAL *a, const REAL *b, const idx *offset, idx gap, REAL *c, idx ldc,
                           const REAL *bias) {
    const idx chain = chain_of(K);
    for (idx k = 0; k < K; k += chain)
        tile(m, n, MIN(chain, K - k), a + k * m, b, 0, offset + k, gap, c, ldc, 1, k ? NULL : bias, k > 0);
}
INLINE void tile_in_chains(idx m, idx n, idx K, const REAL *a, const REAL *b, const idx *offset, idx gap, REAL *c, idx ldc,
                           const REAL *bias) {
    if (K > EXACT_CHAIN) several_chains(m, n, K, a, b, offset, gap, c, ldc, bias);
    else tile(m, n, K, a, b, 0, offset, gap, c, ldc, 1, bias, 0);
}

/* No strips, each row of pixels is read where it lies. */
static void multiply_in_place(const struct correlation *p, const struct block *b, struct phase phase, const REAL *padded,
                              REAL *c, idx ldc) {
    idx height = panel_height(p->M), K = p->C * phase.taps, together = rows_together(p->M), n = b->columns, rows;
    const REAL *weights = p->weights + (b->group * p->K + p->C * phase.first) * p->M;
    const idx *offset = p->offset + p->C * phase.first;
    for (idx r = 0; r < b->images * b->rows; r += rows, c += rows * n) {
        const REAL *from = padded + r / b->rows * p->C * p->PH * p->PS * p->PW + r % b->rows * p->pitch;
        rows = r % b->rows + together <= b->rows ? together : 1;
        for (idx j = 0; j < n; j += NR)
            if (rows > 1) rows_in_chains(p->M, K, weights, from + j, p->pitch, offset, NULL, c + j, ldc, n, MIN(NR, n - j));
            else for (idx i = 0; i < p->M; i += height)
                tile_in_chains(MIN(height, p->M - i), MIN(NR, n - j), K, weights + i * K, from + j, offset, VL, c + i * ldc + j,
                               ldc, NULL);
    }
}

/* ---- rows of one image ---- */

/* In place, k goes row by row of the kernel where much of what they see is padding: such rows of taps are left out. */
static idx taps_across(const struct correlation *p) {
    idx first = p->tap[0].h, last = p->tap[p->taps - 1].h, across = 1;
    idx padding = MAX(0, -MIN(first, last)) + MAX(0, (p->OH - 1) * p->SH + MAX(first, last) + 1 - p->H);
    if (4 * padding < p->OH) return p->taps;
    while (across < p->taps && p->tap[across].h == first) across++;
    return across;
}

/* The rows of taps that see more than padding from one of the output rows [row, last]. */
static void rows_of_taps(const struct correlation *p, idx row, idx last, idx *begin, idx *end) {
    const struct tap *tap = p->tap;
    idx step = p->across, up = tap[p->taps - 1].h >= tap[0].h;
    idx top = (up ? last : row) * p->SH, bottom = (up ? row : last) * p->SH;
    *begin = 0, *end = p->taps / step;
    if (*end == 1) return;
    while (*begin < *end && (up ? top + tap[*begin * step].h < 0 : top + tap[*begin * step].h >= p->H)) ++*begin;
    while (*begin < *end && (up ? bottom + tap[(*end - 1) * step].h >= p->H : bottom + tap[(*end - 1) * step].h < 0)) --*end;
}

/* Rows of an odd number of vectors go two by two, those of few channels several at a time. */
static idx rows_in_turn(const struct correlation *p, idx columns) {
    idx together = rows_together(p->M);
    return columns <= VL || (together == 1 && columns % NR == VL) ? 2 : together;
}

static void correlate_in_place(const struct correlation *p, const struct block *b, const REAL *padded) {
    const REAL *weights = p->weights + b->group * p->M * p->K, *bias = p->bias ? p->bias + b->group * p->M : NULL;
    idx ldc = p->y_rows * p->y_columns, height = panel_height(p->M), n = b->columns, begin, end;
    idx together = rows_in_turn(p, n), several = rows_together(p->M) > 1 && n > VL;
    REAL t[MR * NR] __attribute__((aligned(64)));
    for (idx image = 0; image < b->images; image++)
        for (idx r = 0, rows; r < b->rows; r += rows) {
            const REAL *from = padded + image * p->C * p->PH * p->PS * p->PW + r * p->pitch;
            REAL *y = output_at(p, b, image, 0, b->row + r);
            idx row = b->row + r, first = row / together * together;   /* the same ones together whatever the blocks */
            rows = row == first && r + together <= b->rows ? together : 1;
            rows_of_taps(p, first, MIN(first + together, p->OH) - 1, &begin, &end);
            idx k = begin * p->across * p->C, K = end * p->across * p->C - k;
            int halves = rows > 1 && n < VL;
            if (several && rows > 1) {
                for (idx j = 0; j < n; j += NR)
                    rows_in_chains(p->M, K, weights + k * p->M, from + j, p->pitch, p->offset + k, bias, y + j, ldc, n,
                                   MIN(NR, n - j));
                continue;
            }
            for (idx j = 0; j < rows * n; j += NR) {
                idx at = j / n * p->pitch + j % n, next = j + VL;   /* the second vector, perhaps of the next row */
                idx gap = halves ? p->pitch : next < rows * n ? next / n * p->pitch + next % n - at : VL;
                for (idx i = 0; i < p->M; i += height) {
                    idx m = MIN(height, p->M - i);
                    const REAL *w = weights + i * p->K + k * m, *start = bias ? bias + i : NULL;
                    REAL *c = y + i * ldc + j;
                    if (!halves) {
                        tile_in_chains(m, MIN(NR, rows * n - j), K, w, from + at, p->offset + k, gap, c, ldc, start);
                        continue;
                    }
                    tile_in_chains(m, NR, K, w, from, p->offset + k, gap, t, NR, start);
                    for (idx u = 0; u < m; u++) {
                        store_n(c + u * ldc, load(t + u * NR), n);
                        store_n(c + u * ldc + n, load(t + u * NR + VL), n);
                    }
                }
            }
        }
}

/* All rows of an image lie next to each other. What is left at their end goes with that of the next image. */
static void correlate_sheared(const struct correlation *p, const struct block *b, const REAL *padded) {
    const REAL *weights = p->weights + b->group * p->M * p->K, *bias = p->bias ? p->bias + b->group * p->M : NULL;
    idx ldc = p->y_rows * p->y_columns, height = panel_height(p->M), n = b->rows * b->columns;
    idx stride = p->C * p->PH * p->PS * p->PW;
    for (idx image = 0; image < b->images; image++, padded += stride)
        for (idx j = 0; j < n; j += NR) {
            int together = n - j <= VL && (image % 2 || image + 1 < b->images);
            for (idx i = 0; i < p->M && !(together && image % 2); i += height) {
                REAL t[MR * NR] __attribute__((aligned(64)));
                idx m = MIN(height, p->M - i);
                const REAL *w = weights + i * p->K, *start = bias ? bias + i : NULL;
                REAL *c = output_at(p, b, image, i, b->row) + j, *next = c + p->groups * p->M * ldc;
                if (!together) {
                    tile_in_chains(m, MIN(NR, n - j), p->K, w, padded + j, p->offset, VL, c, ldc, start);
                    continue;
                }
                tile_in_chains(m, NR, p->K, w, padded + j, p->offset, stride, t, NR, start);
                for (idx u = 0; u < m; u++) {
                    store_part(c + u * ldc, load(t + u * NR), n - j);
                    store_part(next + u * ldc, load(t + u * NR + VL), n - j);
                }
            }
        }
}

/* One output channel (depthwise): many rows at once keep enough sums in flight. */
INLINE void sum_rows(const int rows, const struct correlation *p, const REAL *weights, const REAL *from, REAL bias, REAL *to,
                     idx n) {
    const idx chain = chain_of(p->K);
    vr all[8];
#pragma GCC unroll 8
    for (int r = 0; r < rows; r++) all[r] = broadcast(bias);
    for (idx k = 0, end; k < p->K; k = end) {
        vr sum[8] = {{0}};
        end = MIN(p->K, k + chain);
        for (idx i = k; i < end; i++)
#pragma GCC unroll 8
            for (int r = 0; r < rows; r++) sum[r] += weights[i] * load(from + p->offset[i] + r * p->pitch);
#pragma GCC unroll 8
        for (int r = 0; r < rows; r++) all[r] += sum[r];
    }
    for (int r = 0; r < rows; r++) store_n(to + r * p->y_columns, all[r], n);
}

static void correlate_one_channel(const struct correlation *p, const struct block *b, const REAL *padded) {
    const REAL *weights = p->weights + b->group * p->K;
    idx step = b->rows >= 8 ? 8 : b->rows >= 4 ? 4 : 1;
    REAL bias = p->bias ? p->bias[b->group] : 0;
    for (idx image = 0; image < b->images; image++)
        for (idx r = 0; r < b->rows; r += step)
            for (idx j = 0; j < b->columns; j += VL) {
                idx row = MIN(r, b->rows - step), n = MIN(VL, b->columns - j);   /* the last rows once more rather than fewer */
                const REAL *from = padded + image * p->C * p->PH * p->PS * p->PW + row * p->pitch + j;
                REAL *to = output_at(p, b, image, 0, b->row + row) + j;
                if (step == 8) sum_rows(8, p, weights, from, bias, to, n);
                else if (step == 4) sum_rows(4, p, weights, from, bias, to, n);
                else sum_rows(1, p, weights, from, bias, to, n);
            }
}

static idx lanes_of_row(const struct correlation *p) {
    return round_up(p->OW, p->phases == 1 && (p->OW <= VL || p->OW % VL == 0) ? VL : NR);
}

/* Few output channels read a packed strip only a few times: packing (about as much work as 7 channels) costs more than the
   lanes that stay empty at the end of each row. */
static int prefers_in_place(const struct correlation *p) {
    return p->K
        && ((p->M == 1 && p->phases == 1) || (p->M * p->K <= 32 * KC * MR && p->M * lanes_of_row(p) < (p->M + 7) * p->OW));
}

/* Short rows: copying them once for each column of the kernel costs less than packing patches, and fewer lanes stay empty than
   with each row on its own. */
static int prefers_sheared(const struct correlation *p) {
    idx rows = 1, pixels = p->OH * p->OW, lanes = p->OW <= VL ? VL : round_up(p->OW, NR);
    for (idx t = 1; t < p->taps; t++) rows += p->tap[t].h != p->tap[t - 1].h;
    idx cost = p->M * round_up(pixels, VL) * rows + 7 * pixels;
    return p->phases == 1 && p->SH == 1 && p->SW == 1 && p->K && p->M > 1 && p->M <= NR && pixels <= BLOCK_PIXELS / 2
        && cost * p->OW < p->M * lanes * pixels * rows && cost < (p->M + 7) * pixels * rows;
}
