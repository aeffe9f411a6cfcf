/* The gradient of the weights: the filter and the output change their parts, so

       dw = G' [sum over tiles of (A dy A') * (B' x B)] G,

   and each of the 36 elements is a product of gradients (F x tiles) and tiles (tiles x C). Here the tiles are what is summed,
   so vectors run along channels: the strips and panels of the product are what the transforms write. Every part of a larger
   kernel has channels of its own, rounded up to whole vectors. */

INLINE void transform_gradient(vr *d) {   /* A d, of four */
    vr d0 = d[0], d3 = d[3], even_a = d0 + (REAL)0.5 * d[2], odd_a = ROOT_HALF * (d[1] + (REAL)0.5 * d3);
    vr even_b = d0 + 2 * d[2], odd_b = ROOT_TWO * (d[1] + 2 * d3);
    d[1] = even_a + odd_a;
    d[2] = even_a - odd_a;
    d[3] = even_b + odd_b;
    d[4] = even_b - odd_b;
    d[5] = d3;
}

INLINE void transform_sums(const vr *u, vr *g) {   /* G' u: three results */
    const REAL ca = (REAL)(-2 / 3.), cb = (REAL)(1 / 6.);
    vr even_a = ca * (u[1] + u[2]), even_b = cb * (u[3] + u[4]);
    g[0] = u[0] + even_a + even_b;
    g[1] = (ca * ROOT_HALF) * (u[1] - u[2]) + (cb * ROOT_TWO) * (u[3] - u[4]);
    g[2] = (REAL)0.5 * even_a + 2 * even_b + u[5];
}

enum { LANES = VECTOR_BYTES / sizeof(REAL) > 4 ? VECTOR_BYTES / sizeof(REAL) : 4 };   /* pack takes four at a time */
enum { WEIGHT_PIECE_TILES = 16, AHEAD_OF_PLANE = 4 };

/* x or dy: planes of the group, and its transform in strips of NR or panels of m lanes: (element, strip, tile, lane). The lanes
   are the channels of each part. */
struct side { struct plane plane; struct kernel kernel; idx channels, lanes, image, top, left; REAL *to; idx element; };

struct winograd_weight {
    idx C, F, lanes;                    /* of all parts */
    struct side x, dy;
    REAL *dw;

    struct tiling tiling;
    idx first, tiles, chunk;            /* the chunk at work; most tiles of a chunk */
    idx height, panels, strips;         /* of gradients; of input channels */
    idx block_panels, block_strips;     /* of a block of sums */
    idx block_reals, sums_element, pitch;
    int keeps_sums, is_last;
    REAL *sums, *scratch;
    idx worker_reals;
};

/* Tiles [begin, end) of the chunk, `width` lanes from c on: tiles lie `pitch` apart in what is written. */
INLINE void transform_channels(void (*const transform)(vr *), const int height, const struct winograd_weight *p,
                               const struct side *s, idx c, idx width, idx pitch, idx begin, idx end, REAL *scratch) {
    const idx row = p->pitch, line = LANES * row, beyond = height > TILE ? TILE : 0;
    REAL *to = s->to + c * p->chunk;
    REAL *z = scratch, *pixels = scratch + POINTS * line;
    for (idx l = 0; l < width; l += VL) {
        idx part = (c + l) / s->lanes, channel = (c + l) % s->lanes;
        idx top = s->top - top_of(&s->kernel, part), left = s->left - left_of(&s->kernel, part);
        idx n = MIN(VL, MIN(width - l, s->channels - channel)), used = 0, start[WEIGHT_PIECE_TILES];
        for (idx at = begin; at < end;) {
            struct tile_run r = run_at(&p->tiling, p->first, at, end);
            struct plane plane = s->plane;
            plane.pixels += r.image * s->image + channel * plane.H * plane.W;
            idx first = r.row * TILE - top, column = r.column * TILE - left, columns = r.length * TILE + beyond;
            for (idx i = 0; i < n; i++, plane.pixels += plane.H * plane.W) {
                if (channel + i + AHEAD_OF_PLANE < s->channels)
                    prefetch_rows(plane.pixels + (AHEAD_OF_PLANE * plane.H + MAX(0, first)) * plane.W + MAX(0, column), height,
                                  columns, plane.W, 0);
                transform_columns(transform, POINTS, height, 1, &plane, first, column, columns, z + i * row + used, NULL, line);
            }
            for (idx t = 0; t < r.length; t++) start[at - begin + t] = (used + t * TILE) * LANES;
            used += r.length * TILE + beyond, at += r.length;
        }
        for (int i = 0; i < POINTS; i++) {
            pack(round_up(n, 4), used, z + i * line, row, 1, pixels, LANES);
            for (idx t = 0; t < end - begin; t++) {
                vr d[POINTS];
#pragma GCC unroll 6
                for (int j = 0; j < height; j++) d[j] = load(pixels + start[t] + j * LANES);
                transform(d);
                REAL *out = to + i * POINTS * s->element + (begin + t) * pitch + l;
#pragma GCC unroll 6
                for (int j = 0; j < POINTS; j++)
                    if (n == VL) store(out + j * s->element, d[j]);
                    else store_n(out + j * s->element, d[j], n);
            }
        }
    }
}

/* Items: pieces of the chunk, then strips of x and panels of dy. */
static void transform_both(void *arg, idx begin, idx end, int worker) {
    const struct winograd_weight *p = arg;
    REAL *scratch = p->scratch + worker * p->worker_reals;
    for (idx item = begin; item < end; item++) {
        idx part = item % (p->strips + p->panels), from = item / (p->strips + p->panels) * WEIGHT_PIECE_TILES;
        idx to = MIN(p->tiles, from + WEIGHT_PIECE_TILES);
        if (part < p->strips) {
            idx c = part * NR;
            transform_channels(transform_input, POINTS, p, &p->x, c, MIN(NR, p->lanes - c), NR, from, to, scratch);
        } else {
            idx f = (part - p->strips) * p->height, m = MIN(p->height, p->F - f);
            transform_channels(transform_gradient, TILE, p, &p->dy, f, m, m, from, to, scratch);
        }
    }
}

/* Of n channels: taps (3, 3, VL) of a part, to dw (channel, KH, KW). */
static void store_taps(const struct kernel *k, idx part, const REAL *taps, idx n, REAL *dw) {
    if (k->KH == TAPS && k->KW == TAPS) {
        pack(TAPS * TAPS, n, taps, VL, 1, dw, TAPS * TAPS);
        return;
    }
    idx top = top_of(k, part), left = left_of(k, part);
    for (idx c = 0; c < n; c++, dw += k->KH * k->KW)
        for (idx i = 0; i < MIN(TAPS, k->KH - top); i++)
            for (idx j = 0; j < MIN(TAPS, k->KW - left); j++)
                dw[(top + i) * k->KW + left + j] = taps[(i * TAPS + j) * VL + c];
}

/* sums: (element, row, column) of a block */
static void finish_weights(const struct winograd_weight *p, idx f0, idx rows, idx lane0, idx columns, const REAL *sums) {
    const struct kernel *k = &p->x.kernel;
    for (idx f = 0; f < rows; f++, sums += p->block_strips * NR)
        for (idx l = 0; l < columns; l += VL) {
            idx part = (lane0 + l) / p->x.lanes, c = (lane0 + l) % p->x.lanes, n = MIN(VL, MIN(columns - l, p->C - c));
            vr half[TAPS][POINTS], t[POINTS], g[TAPS];
            REAL taps[TAPS * TAPS * VL] __attribute__((aligned(64)));
            for (int j = 0; j < POINTS; j++) {
                for (int i = 0; i < POINTS; i++) t[i] = load(sums + (i * POINTS + j) * p->sums_element + l);
                transform_sums(t, g);
                for (int i = 0; i < TAPS; i++) half[i][j] = g[i];
            }
            for (int i = 0; i < TAPS; i++) {
                transform_sums(half[i], g);
                for (int j = 0; j < TAPS; j++) store(taps + (i * TAPS + j) * VL, g[j]);
            }
            store_taps(k, part, taps, n, p->dw + ((f0 + f) * p->C + c) * k->KH * k->KW);
        }
}

static void sum_blocks(void *arg, idx begin, idx end, int worker) {
    const struct winograd_weight *p = arg;
    idx across = ceil_div(p->strips, p->block_strips);
    for (idx item = begin; item < end; item++) {
        idx panel0 = item / across * p->block_panels, strip0 = item % across * p->block_strips;
        idx panels = MIN(p->block_panels, p->panels - panel0), strips = MIN(p->block_strips, p->strips - strip0);
        REAL *sums = p->keeps_sums ? p->sums + item * p->block_reals : p->scratch + worker * p->worker_reals;
        for (int e = 0; e < ELEMENTS; e++)
            for (idx s = 0; s < strips; s++)
                for (idx i = 0; i < panels; i++) {
                    idx f = (panel0 + i) * p->height, c = (strip0 + s) * NR, ld = p->block_strips * NR;
                    micro_kernels[MIN(p->height, p->F - f)](
                        p->tiles, p->dy.to + e * p->dy.element + f * p->chunk, p->x.to + e * p->x.element + c * p->chunk, NR,
                        NULL, VL, sums + e * p->sums_element + i * p->height * ld + s * NR, ld, NULL, p->first > 0);
                }
        idx f = panel0 * p->height, c = strip0 * NR;
        if (p->is_last)
            finish_weights(p, f, MIN(panels * p->height, p->F - f), c, MIN(strips * NR, p->lanes - c), sums);
    }
}

enum { WEIGHT_CHUNK_REALS = 1 << 20 };

static int winograd_sum(struct winograd_weight p) {
    idx tiles = p.tiling.count;
    p.height = panel_height(p.F), p.panels = ceil_div(p.F, p.height), p.strips = ceil_div(p.lanes, NR);
    p.chunk = block_of(tiles, MAX(128, WEIGHT_CHUNK_REALS / (ELEMENTS * (p.strips * NR + p.F))));
    p.x.element = p.strips * p.chunk * NR + 16, p.dy.element = round_up(p.chunk * p.F, 16) + 16;
    p.block_panels = MAX(1, BLOCK_ROWS / p.height), p.block_strips = 2;
    idx items, least = 4 * cnn_get_num_threads();
    for (;;) {
        items = ceil_div(p.panels, p.block_panels) * ceil_div(p.strips, p.block_strips);
        if (items >= least || p.block_panels * p.block_strips == 1) break;
        if (p.block_strips > 1) p.block_strips--;
        else p.block_panels = ceil_div(p.block_panels, 2);
    }
    p.sums_element = p.block_panels * p.height * p.block_strips * NR + 16, p.block_reals = ELEMENTS * p.sums_element;
    idx runs = MIN(WEIGHT_PIECE_TILES, WEIGHT_PIECE_TILES / p.tiling.columns + 2);   /* in a piece, at most */
    p.pitch = (WEIGHT_PIECE_TILES + runs) * TILE + VL;
    p.keeps_sums = p.chunk < tiles;
    idx parts = p.strips + p.panels, pieces = ceil_div(p.chunk, WEIGHT_PIECE_TILES), zeros = round_up(p.pitch, 16);
    idx transform_reals = (POINTS + 1) * LANES * p.pitch;
    idx grain_in = grain_of(1000 * (double)MIN(NR, p.lanes));
    idx grain_out = grain_of(0.1 * (double)p.block_reals * (double)p.chunk);
    idx workers = MAX(parallel_workers(parts * pieces, grain_in), parallel_workers(items, grain_out));
    p.worker_reals = round_up(MAX(transform_reals, p.keeps_sums ? 0 : p.block_reals), 16);
    idx x = ELEMENTS * p.x.element, dy = ELEMENTS * p.dy.element, sums = p.keeps_sums ? items * p.block_reals : 0;
    REAL *shared = scratch_take(sizeof(REAL) * (size_t)(zeros + x + dy + sums + workers * p.worker_reals));
    if (!shared) return CNN_NO_MEMORY;
    memset(shared, 0, sizeof(REAL) * (size_t)zeros);
    p.x.plane.zeros = p.dy.plane.zeros = shared;
    p.x.to = shared + zeros, p.dy.to = p.x.to + x, p.sums = p.dy.to + dy, p.scratch = p.sums + sums;
    for (p.first = 0; p.first < tiles; p.first += p.chunk) {
        p.tiles = MIN(p.chunk, tiles - p.first), p.is_last = p.first + p.chunk >= tiles;
        parallel_for(parts * ceil_div(p.tiles, WEIGHT_PIECE_TILES), grain_in, transform_both, &p);
        parallel_for(items, grain_out, sum_blocks, &p);
    }
    scratch_give(shared);
    return CNN_OK;
}

static int winograd_backward_weight(const struct conv_shape *s, const REAL *dy, const REAL *x, REAL *dw) {
    idx C = s->C / s->groups, F = s->F / s->groups;
    struct kernel kernel = kernel_of(s->KH, s->KW);
    idx lanes = kernel.parts > 1 ? round_up(C, VL) : C;
    int status = CNN_OK;
    for (idx g = 0; g < s->groups && status == CNN_OK; g++)
        status = winograd_sum((struct winograd_weight){
            .C = C, .F = F, .lanes = kernel.parts * lanes, .dw = dw + g * F * C * s->KH * s->KW,
            .tiling = tiling_of(s->N, s->OH, s->OW),
            .x = {.plane = {.pixels = x + g * C * s->H * s->W, .H = s->H, .W = s->W}, .kernel = kernel, .channels = C,
                  .lanes = lanes, .image = s->C * s->H * s->W, .top = s->top, .left = s->left},
            .dy = {.plane = {.pixels = dy + g * F * s->OH * s->OW, .H = s->OH, .W = s->OW}, .kernel = kernel_of(TAPS, TAPS),
                   .channels = F, .lanes = F, .image = s->F * s->OH * s->OW}});
    return status;
}
