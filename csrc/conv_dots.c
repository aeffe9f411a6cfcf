/* The gradient of a convolution's weights where it has few outputs: dot products over pixels.

   dw[f, k] = sum over pixels of dy[f, pixel] patch[k, pixel]. Both are contiguous along the pixels, so vectors run along them and
   few channels cost nothing extra. A thread owns tiles of rows k of the patches, which meet all f. Its first and its last tile
   it may share with other threads, each with channels f of its own.

   A row of patches is gathered from the padded image. With stride 1 it need not be: if the rows of dy are as far apart as those
   of the padded image, with zeros between them, then a tap moves all pixels alike, and a row of patches begins in the padded
   image itself, a tap further on. But zero times an infinite x is NaN: sums that are not finite are made again by gathering. */

/* each(m, k) for every tile of m channels and k rows: none is given more to compute than it needs. */
#if VECTOR_BYTES == 64 || defined(__aarch64__)
enum { DOT_F = 4, DOT_K = 6 };   /* 24 of 32 registers accumulate */
#define FOR_ROWS(each, m) each(m, 1) each(m, 2) each(m, 3) each(m, 4) each(m, 5) each(m, 6)
#define FOR_DOT_TILES(each) FOR_ROWS(each, 1) FOR_ROWS(each, 2) FOR_ROWS(each, 3) FOR_ROWS(each, 4)
#else
enum { DOT_F = 3, DOT_K = 4 };   /* 12 of 16 */
#define FOR_ROWS(each, m) each(m, 1) each(m, 2) each(m, 3) each(m, 4)
#define FOR_DOT_TILES(each) FOR_ROWS(each, 1) FOR_ROWS(each, 2) FOR_ROWS(each, 3)
#endif
enum { WEIGHT_BLOCK_PIXELS = 1024 };   /* DOT_K rows of it fit into L1 */

struct weight_gradient {
    struct correlation seen;   /* which pixels of x each output pixel sees */
    idx F, tiles, tile;        /* per group; tiles of at most DOT_K rows k */
    idx items;                 /* of a group: tiles, each in blocks of DOT_F channels */
    const REAL *dy;
    REAL *dw;
    vr *sums;                  /* (group, tile, F, DOT_K): lanes are added once, after the last block */
    int spaced;                /* zeros between the rows of dy: no patch is gathered */
    idx dy_reals;
};

/* `run` pixels of each image, side by side; how far apart images and rows are in dy and in the patches. */
struct dots {
    idx images, run, dy_image, dy_plane, patch_image, patch_row[DOT_K];
    const REAL *dy, *patches, *soon;   /* to be asked for meanwhile, a run for each image */
    int accumulate;
};

/* w <= VL pixels, from p on. */
INLINE void add_pixels(const int m, const int k, idx p, idx w, const REAL *dy, idx dy_plane, const REAL *const *patch,
                       const REAL *soon, vr sum[DOT_F][DOT_K]) {
    vr d[DOT_F];
    __builtin_prefetch(soon + p, 0, 2);
#pragma GCC unroll 4
    for (int i = 0; i < m; i++) {
        d[i] = load_part(dy + i * dy_plane + p, w);
        if (k > 1) hold(d[i]);
    }
#pragma GCC unroll 6
    for (int l = 0; l < k; l++) {
        vr x = load_part(patch[l] + p, w);
        if (m > 1) hold(x);
#pragma GCC unroll 4
        for (int i = 0; i < m; i++) sum[i][l] += d[i] * x;
    }
}

/* sums = or += the products of m channels of dy with k rows of the patches. */
INLINE void pixel_dots(const int m, const int k, const struct dots *q, vr *sums) {
    vr sum[DOT_F][DOT_K];
#pragma GCC unroll 4
    for (int i = 0; i < m; i++)
#pragma GCC unroll 6
        for (int l = 0; l < k; l++) sum[i][l] = q->accumulate ? sums[i * DOT_K + l] : (vr){0};
    const idx run = q->run, dy_plane = q->dy_plane;
    for (idx n = 0; n < q->images; n++) {
        const REAL *dy = q->dy + n * q->dy_image, *soon = q->soon + n * run, *patch[DOT_K];
#pragma GCC unroll 6
        for (int l = 0; l < k; l++) patch[l] = q->patches + n * q->patch_image + q->patch_row[l];
        idx p = 0;
        for (; p + VL <= run; p += VL) add_pixels(m, k, p, VL, dy, dy_plane, patch, soon, sum);
        if (p < run) add_pixels(m, k, p, run - p, dy, dy_plane, patch, soon, sum);
    }
#pragma GCC unroll 4
    for (int i = 0; i < m; i++)
#pragma GCC unroll 6
        for (int l = 0; l < k; l++) sums[i * DOT_K + l] = sum[i][l];
}

typedef void (*dot_kernel)(const struct dots *q, vr *sums);
#define DOTS(m, k) static void dots_##m##_##k(const struct dots *q, vr *sums) { pixel_dots(m, k, q, sums); }
FOR_DOT_TILES(DOTS)
#define NAME_OF_DOTS(m, k) [m][k] = dots_##m##_##k,
static const dot_kernel dot_kernels[DOT_F + 1][DOT_K + 1] = {FOR_DOT_TILES(NAME_OF_DOTS)};

/* Row k of the patches: each image's pixels one after the other. */
static void gather_patch_row(const struct correlation *p, const struct block *b, idx k, const REAL *padded, idx pitch, REAL *d) {
    const idx image = p->C * p->PH * p->PS * p->PW, row = p->pitch, images = b->images, rows = b->rows, columns = b->columns;
    padded += p->offset[k];
    for (idx n = 0; n < images; n++)
        for (idx r = 0; r < rows; r++)
            for (idx j = 0; j < columns; j += VL)
                store(d + n * pitch + r * columns + j, load(padded + n * image + r * row + j));
}

/* The first pixel of a block in the planes of its group. */
static const REAL *dy_of(const struct weight_gradient *q, const struct block *b) {
    const struct correlation *p = &q->seen;
    return q->dy + (b->image * p->groups + b->group) * q->F * p->OH * p->OW + b->row * p->OW + b->column;
}

/* Rows of dy as far apart as those of the padded image, zeros between them. */
static void space_dy(const struct weight_gradient *q, const struct block *b, REAL *d) {
    const struct correlation *p = &q->seen;
    idx S = p->OH * p->OW;
    for (idx n = 0; n < b->images; n++)
        for (idx f = 0; f < q->F; f++, d += p->rows * p->pitch) {
            const REAL *s = dy_of(q, b) + (n * p->groups * q->F + f) * S;
            for (idx r = 0; r < b->rows; r++, s += p->OW)
                for (idx j = 0; j < p->pitch; j += VL)
                    store(d + r * p->pitch + j, load_part(s + j, MAX(0, b->columns - j)));
        }
}

/* The n-th of what the next block reads, a plane for each image at a time: first those of dy, then those of x. */
static const REAL *read_soon(const struct weight_gradient *q, const struct block *next, idx n) {
    const struct correlation *p = &q->seen;
    idx plane = n * next->images;
    if (plane < q->F) return dy_of(q, next) + plane * p->OH * p->OW;
    plane = (next->image * p->groups + next->group) * p->C + MIN(plane - q->F, p->C - 1);
    return p->x + (plane * p->H + MAX(0, next->row * p->SH + p->top)) * p->W;
}

struct channels { idx begin, end; };

/* The channels of a tile that are among the items [first, last) of its group. */
static struct channels channels_of(const struct weight_gradient *q, idx tile, idx first, idx last) {
    idx each = q->items / q->tiles, at = tile * each;
    return (struct channels){MAX(0, first - at) * DOT_F, MIN(q->F, (last - at) * DOT_F)};
}

/* dy is NULL where patches are gathered, else the spaced one. */
static void weight_tile(const struct weight_gradient *q, const struct block *b, const struct block *next, idx tile,
                        struct channels channels, const REAL *padded, const REAL *dy, REAL *patches, int accumulate) {
    const struct correlation *p = &q->seen;
    idx run = b->rows * b->columns, pitch = round_up(run, VL), S = p->OH * p->OW;
    idx k0 = tile * q->tile, kn = MIN(q->tile, p->K - k0);
    struct dots dots = {.images = b->images, .run = run, .dy_image = p->groups * q->F * S, .dy_plane = S, .patch_image = pitch,
                        .patches = patches, .accumulate = accumulate};
    for (idx l = 0; l < kn; l++) dots.patch_row[l] = dy ? p->offset[k0 + l] : l * b->images * pitch;
    if (dy) {
        dots.run = (b->rows - 1) * p->pitch + b->columns;
        dots.dy_plane = p->rows * p->pitch, dots.dy_image = q->F * dots.dy_plane;
        dots.patches = padded, dots.patch_image = p->C * p->PH * p->pitch;
    } else {
        dy = dy_of(q, b);
        for (idx l = 0; l < kn; l++) gather_patch_row(p, b, k0 + l, padded, pitch, patches + dots.patch_row[l]);
    }
    for (idx f = channels.begin; f < channels.end; f += DOT_F) {
        dots.dy = dy + f * dots.dy_plane;
        dots.soon = read_soon(q, next, tile * ceil_div(q->F, DOT_F) + f / DOT_F);
        dot_kernels[MIN(DOT_F, channels.end - f)][kn](&dots, q->sums + ((b->group * q->tiles + tile) * q->F + f) * DOT_K);
    }
}

static void finish_tile(const struct weight_gradient *q, idx group, idx tile, struct channels channels) {
    idx k0 = tile * q->tile, kn = MIN(q->tile, q->seen.K - k0);
    const vr *sums = q->sums + ((group * q->tiles + tile) * q->F + channels.begin) * DOT_K;
    for (idx f = channels.begin; f < channels.end; f++, sums += DOT_K)
        for (idx l = 0; l < kn; l++) q->dw[(group * q->F + f) * q->seen.K + k0 + l] = horizontal_sum(sums[l]);
}

/* The items [first, last) of a group, over all blocks of pixels. */
static void sum_tiles(const struct weight_gradient *q, idx group, idx first, idx last, int spaced, REAL *scratch) {
    const struct correlation *p = &q->seen;
    const idx n = blocks(p), t0 = first * q->tiles / q->items, t1 = ceil_div(last * q->tiles, q->items);
    idx c0 = t0 * q->tile / p->taps, c1 = ceil_div(MIN(p->K, t1 * q->tile), p->taps);
    REAL *padded = scratch, *dy = padded + p->padded_reals, *patches = dy + q->dy_reals;
    for (idx i = 0; i < n; i++) {
        struct block b = block_at(p, group * n + i), next = block_at(p, MIN(group * n + i + 1, p->groups * n - 1));
        pad_block(p, &b, c0, c1, padded);
        if (spaced) space_dy(q, &b, dy);
        for (idx t = t0; t < t1; t++)
            weight_tile(q, &b, &next, t, channels_of(q, t, first, last), padded, spaced ? dy : NULL, patches, i > 0);
    }
}

static int is_finite(const struct weight_gradient *q, idx group, idx item) {
    const idx tile = item * q->tiles / q->items, rows = MIN(q->tile, q->seen.K - tile * q->tile);
    const struct channels channels = channels_of(q, tile, item, item + 1);
    const vr *sums = q->sums + ((group * q->tiles + tile) * q->F + channels.begin) * DOT_K;
    vr zero = {0};
    for (idx f = channels.begin; f < channels.end; f++, sums += DOT_K)
        for (idx l = 0; l < rows; l++) zero += 0 * sums[l];
    return horizontal_sum(zero) == 0;
}

static void weight_tiles(void *arg, idx begin, idx end, int worker) {
    const struct weight_gradient *q = arg;
    REAL *scratch = q->seen.scratch + worker * q->seen.worker_reals;
    while (begin < end) {
        idx group = begin / q->items, first = begin % q->items, last = MIN(q->items, first + end - begin);
        sum_tiles(q, group, first, last, q->spaced, scratch);
        for (idx i = first; q->spaced && i < last; i++)
            if (!is_finite(q, group, i)) sum_tiles(q, group, i, i + 1, 0, scratch);
        for (idx t = first * q->tiles / q->items; t < ceil_div(last * q->tiles, q->items); t++)
            finish_tile(q, group, t, channels_of(q, t, first, last));
        begin += last - first;
    }
}

static int weight_by_dots(const struct conv_shape *s, const void *dy, const void *x, void *dw) {
    idx C = s->C / s->groups, F = s->F / s->groups, taps = s->KH * s->KW, K = C * taps, tile = block_of(K, DOT_K);
    size_t sums = sizeof(vr) * (size_t)(s->groups * ceil_div(K, tile) * F * DOT_K), offsets = sizeof(idx) * (size_t)K;
    char *shared = scratch_take(sums + offsets + sizeof(struct tap) * (size_t)taps);
    if (!shared) return CNN_NO_MEMORY;
    struct tap *tap = (struct tap *)(shared + sums + offsets);
    for (idx t = 0; t < taps; t++) tap[t] = (struct tap){t / s->KW * s->DH - s->top, t % s->KW * s->DW - s->left, t};
    struct weight_gradient q = {
        .seen = {.N = s->N, .groups = s->groups, .C = C, .H = s->H, .W = s->W, .OH = s->OH, .OW = s->OW, .SH = s->SH,
                 .SW = s->SW, .taps = taps, .tap = tap, .x = x, .K = K, .offset = (idx *)(shared + sums)},
        .F = F, .tiles = ceil_div(K, tile), .tile = tile, .items = ceil_div(K, tile) * ceil_div(F, DOT_F),
        .dy = dy, .dw = dw, .sums = (vr *)shared};
    struct correlation *p = &q.seen;
    choose_blocks(p, WEIGHT_BLOCK_PIXELS);
    choose_padding(p);
    idx between = p->PW - p->columns;
    q.spaced = s->SH * s->SW == 1 && 2 * F * (p->columns + K * between) < 3 * K * p->columns;
    q.dy_reals = q.spaced ? round_up(p->images * F * p->rows * p->pitch, 16) + NR : 0;
    idx patches = round_up(DOT_K * p->images * round_up(p->rows * p->columns, VL), 16) + 2 * NR;
    p->worker_reals = p->padded_reals + q.dy_reals + patches;
    idx items = s->groups * q.items;
    idx grain = grain_of(0.1 * (double)(tile * DOT_F) * (double)(s->N * s->OH * s->OW));
    p->scratch = scratch_take(sizeof(REAL) * (size_t)p->worker_reals * (size_t)parallel_workers(items, grain));
    if (p->scratch) parallel_for(items, grain, weight_tiles, &q);
    int status = p->scratch ? CNN_OK : CNN_NO_MEMORY;
    scratch_give(p->scratch);
    scratch_give(shared);
    return status;
}
