/* The gradient of a convolution's weights where it has few outputs: dot products over pixels.

   dw[f, k] = sum over pixels of dy[f, pixel] patch[k, pixel]. Both are contiguous along the pixels, so vectors run along them and
   few channels cost nothing extra. A thread owns tiles of rows k of the patches: it gathers them once and meets all f. Its first
   and its last tile it may share with other threads, each with channels f of its own. */

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
};

/* `run` pixels of each image, side by side; how far apart images and rows are in dy and in the patches. */
struct dots {
    idx images, run, dy_image, dy_plane, patch_image, patch_row;
    const REAL *dy, *patches;
    int accumulate;
};

/* sums = or += the products of m channels of dy with k rows of the patches. */
INLINE void pixel_dots(const int m, const int k, const struct dots *q, vr *sums) {
    vr sum[DOT_F][DOT_K];
#pragma GCC unroll 4
    for (int i = 0; i < m; i++)
#pragma GCC unroll 6
        for (int l = 0; l < k; l++) sum[i][l] = q->accumulate ? sums[i * DOT_K + l] : (vr){0};
    const idx run = q->run, dy_plane = q->dy_plane, patch_row = q->patch_row;
    for (idx n = 0; n < q->images; n++) {
        const REAL *dy = q->dy + n * q->dy_image, *patches = q->patches + n * q->patch_image;
        for (idx p = 0; p < run; p += VL) {
            vr d[DOT_F];
#pragma GCC unroll 4
            for (int i = 0; i < m; i++) {
                const REAL *s = dy + i * dy_plane + p;
                d[i] = run - p >= VL ? load(s) : load_n(s, run - p);
            }
#pragma GCC unroll 6
            for (int l = 0; l < k; l++) {
                vr x = load(patches + l * patch_row + p);
#pragma GCC unroll 4
                for (int i = 0; i < m; i++) sum[i][l] += d[i] * x;
            }
        }
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

/* Row k of the patches: each image's pixels one after the other, then zeros up to the pitch. */
static void gather_patch_row(const struct correlation *p, const struct block *b, idx k, const REAL *padded, idx pitch, REAL *d) {
    idx run = b->rows * b->columns;
    for (idx n = 0; n < b->images; n++, d += pitch) {
        const REAL *s = padded + n * p->C * p->PH * p->PS * p->PW + p->offset[k];
        for (idx r = 0; r < b->rows; r++, s += p->pitch)
            for (idx j = 0; j < b->columns; j += VL) store(d + r * b->columns + j, load(s + j));
        for (idx j = run; j < pitch; j++) d[j] = 0;
    }
}

struct channels { idx begin, end; };

/* The channels of a tile that are among the items [first, last) of its group. */
static struct channels channels_of(const struct weight_gradient *q, idx tile, idx first, idx last) {
    idx each = q->items / q->tiles, at = tile * each;
    return (struct channels){MAX(0, first - at) * DOT_F, MIN(q->F, (last - at) * DOT_F)};
}

static void weight_tile(const struct weight_gradient *q, const struct block *b, idx tile, struct channels channels,
                        const REAL *padded, REAL *patches, int accumulate) {
    const struct correlation *p = &q->seen;
    idx run = b->rows * b->columns, pitch = round_up(run, VL), ld = b->images * pitch;
    idx k0 = tile * q->tile, kn = MIN(q->tile, p->K - k0), S = p->OH * p->OW;
    struct dots dots = {.images = b->images, .run = run, .dy_image = p->groups * q->F * S, .dy_plane = S, .patch_image = pitch,
                        .patch_row = ld, .patches = patches, .accumulate = accumulate};
    for (idx l = 0; l < kn; l++) gather_patch_row(p, b, k0 + l, padded, pitch, patches + l * ld);
    for (idx f = channels.begin; f < channels.end; f += DOT_F) {
        dots.dy = q->dy + ((b->image * p->groups + b->group) * q->F + f) * S + b->row * p->OW + b->column;
        dot_kernels[MIN(DOT_F, channels.end - f)][kn](&dots, q->sums + ((b->group * q->tiles + tile) * q->F + f) * DOT_K);
    }
}

static void finish_tile(const struct weight_gradient *q, idx group, idx tile, struct channels channels) {
    idx k0 = tile * q->tile, kn = MIN(q->tile, q->seen.K - k0);
    const vr *sums = q->sums + ((group * q->tiles + tile) * q->F + channels.begin) * DOT_K;
    for (idx f = channels.begin; f < channels.end; f++, sums += DOT_K)
        for (idx l = 0; l < kn; l++) q->dw[(group * q->F + f) * q->seen.K + k0 + l] = horizontal_sum(sums[l]);
}

static void weight_tiles(void *arg, idx begin, idx end, int worker) {
    const struct weight_gradient *q = arg;
    const struct correlation *p = &q->seen;
    REAL *padded = p->scratch + worker * p->worker_reals, *patches = padded + p->padded_reals;
    while (begin < end) {
        idx group = begin / q->items, first = begin % q->items, last = MIN(q->items, first + end - begin);
        idx t0 = first * q->tiles / q->items, t1 = ceil_div(last * q->tiles, q->items);
        idx c0 = t0 * q->tile / p->taps, c1 = ceil_div(MIN(p->K, t1 * q->tile), p->taps);
        for (idx i = 0; i < blocks(p); i++) {
            struct block b = block_at(p, group * blocks(p) + i);
            pad_block(p, &b, c0, c1, padded);
            for (idx t = t0; t < t1; t++) weight_tile(q, &b, t, channels_of(q, t, first, last), padded, patches, i > 0);
        }
        for (idx t = t0; t < t1; t++) finish_tile(q, group, t, channels_of(q, t, first, last));
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
        {.N = s->N, .groups = s->groups, .C = C, .H = s->H, .W = s->W, .OH = s->OH, .OW = s->OW, .SH = s->SH, .SW = s->SW,
         .taps = taps, .tap = tap, .x = x, .K = K, .offset = (idx *)(shared + sums)},
        F, ceil_div(K, tile), tile, ceil_div(K, tile) * ceil_div(F, DOT_F), dy, dw, (vr *)shared};
    struct correlation *p = &q.seen;
    choose_blocks(p, WEIGHT_BLOCK_PIXELS);
    choose_padding(p);
    p->worker_reals = p->padded_reals + round_up(DOT_K * p->images * round_up(p->rows * p->columns, VL), 16) + 2 * NR;
    idx items = s->groups * q.items;
    idx grain = grain_of(0.1 * (double)(tile * DOT_F) * (double)(s->N * s->OH * s->OW));
    p->scratch = scratch_take(sizeof(REAL) * (size_t)p->worker_reals * (size_t)parallel_workers(items, grain));
    if (p->scratch) parallel_for(items, grain, weight_tiles, &q);
    int status = p->scratch ? CNN_OK : CNN_NO_MEMORY;
    scratch_give(p->scratch);
    scratch_give(shared);
    return status;
}
