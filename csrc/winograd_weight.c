/* The gradient of the weights: the filter and the output change their parts, so

       dw = G' [sum over tiles of (A dy A') * (B' x B)] G,

   and each of the 36 elements is a product of gradients (F x tiles) and tiles (tiles x C). Here the tiles are what is summed,
   so vectors run along channels: the strips and panels of the product are what the transforms write. Every part of a larger
   kernel has channels of its own, rounded up to whole vectors. */

struct kernel { idx KH, KW, across, parts; };

static struct kernel kernel_of(idx KH, idx KW) {
    idx across = ceil_div(KW, TAPS);
    return (struct kernel){KH, KW, across, ceil_div(KH, TAPS) * across};
}

INLINE idx top_of(const struct kernel *k, idx part) { return part / k->across * TAPS; }
INLINE idx left_of(const struct kernel *k, idx part) { return part % k->across * TAPS; }

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
    idx row, rows;                      /* of elements at work: all of them, or those of a slice */
    idx height, panels, strips;         /* of gradients; of input channels */
    idx block_panels, block_strips;     /* of a block of sums */
    idx block_reals, sums_element, pitch;
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
        for (idx i = 0; i < p->rows; i++) {
            pack(round_up(n, 4), used, z + (p->row + i) * line, row, 1, pixels, LANES);
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

/* Tiles of the chunk from `from` on, of a strip of x or, behind the strips, a panel of dy. */
static void transform_piece(const struct winograd_weight *p, idx from, idx part, REAL *scratch) {
    idx to = MIN(p->tiles, from + WEIGHT_PIECE_TILES);
    if (part < p->strips) {
        idx c = part * NR;
        transform_channels(transform_input, POINTS, p, &p->x, c, MIN(NR, p->lanes - c), NR, from, to, scratch);
    } else {
        idx f = (part - p->strips) * p->height, m = MIN(p->height, p->F - f);
        transform_channels(transform_gradient, TILE, p, &p->dy, f, m, m, from, to, scratch);
    }
}

/* The sums of a block at element e: the products of the chunk's tiles. */
static void multiply_element(const struct winograd_weight *p, idx e, idx panel0, idx strip0, REAL *sums) {
    idx panels = MIN(p->block_panels, p->panels - panel0), strips = MIN(p->block_strips, p->strips - strip0);
    idx ld = p->block_strips * NR, at = e - p->row * POINTS;
    for (idx s = 0; s < strips; s++)
        for (idx i = 0; i < panels; i++) {
            idx f = (panel0 + i) * p->height, c = (strip0 + s) * NR;
            micro_kernels[MIN(p->height, p->F - f)](
                p->tiles, p->dy.to + at * p->dy.element + f * p->chunk, p->x.to + at * p->x.element + c * p->chunk, NR, NULL, VL,
                sums + e * p->sums_element + i * p->height * ld + s * NR, ld, NULL, p->first > 0);
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

/* ---- few tiles: all are transformed, then a block of sums at a time stays in the cache ---- */

static void transform_pieces_of_both(void *arg, idx begin, idx end, int worker) {
    const struct winograd_weight *p = arg;
    idx parts = p->strips + p->panels;
    for (idx item = begin; item < end; item++)
        transform_piece(p, item / parts * WEIGHT_PIECE_TILES, item % parts, p->scratch + worker * p->worker_reals);
}

static void sum_blocks(void *arg, idx begin, idx end, int worker) {
    const struct winograd_weight *p = arg;
    REAL *sums = p->scratch + worker * p->worker_reals;
    idx across = ceil_div(p->strips, p->block_strips);
    for (idx item = begin; item < end; item++) {
        idx panel0 = item / across * p->block_panels, strip0 = item % across * p->block_strips;
        for (idx e = 0; e < ELEMENTS; e++) multiply_element(p, e, panel0, strip0, sums);
        idx f = panel0 * p->height, c = strip0 * NR;
        finish_weights(p, f, MIN(p->block_panels * p->height, p->F - f), c, MIN(p->block_strips * NR, p->lanes - c), sums);
    }
}

static int sum_by_blocks(struct winograd_weight p) {
    p.chunk = p.tiles = p.tiling.count, p.rows = POINTS;
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
    idx pieces = (p.strips + p.panels) * ceil_div(p.tiles, WEIGHT_PIECE_TILES), zeros = round_up(p.pitch, 16);
    idx grain_in = grain_of(1000 * (double)MIN(NR, p.lanes));
    idx grain_out = grain_of(0.1 * (double)p.block_reals * (double)p.chunk);
    idx workers = MAX(parallel_workers(pieces, grain_in), parallel_workers(items, grain_out));
    p.worker_reals = round_up(MAX((POINTS + 1) * LANES * p.pitch, p.block_reals), 16);
    idx x = ELEMENTS * p.x.element, dy = ELEMENTS * p.dy.element;
    REAL *shared = scratch_take(sizeof(REAL) * (size_t)(zeros + x + dy + workers * p.worker_reals));
    if (!shared) return CNN_NO_MEMORY;
    memset(shared, 0, sizeof(REAL) * (size_t)zeros);
    p.x.plane.zeros = p.dy.plane.zeros = shared;
    p.x.to = shared + zeros, p.dy.to = p.x.to + x, p.scratch = p.dy.to + dy;
    parallel_for(pieces, grain_in, transform_pieces_of_both, &p);
    parallel_for(items, grain_out, sum_blocks, &p);
    scratch_give(shared);
    return CNN_OK;
}

/* ---- many tiles: chunk by chunk, each thread some rows of the elements ----

   So what a thread transforms it multiplies itself, out of its own L2, and none waits for another. The pixels are read and the
   columns transformed by each. More threads than rows share the input channels, and all transform dy. */

static void sum_slices(void *arg, idx begin, idx end, int worker) {
    struct winograd_weight p = *(const struct winograd_weight *)arg;
    REAL *scratch = p.scratch + worker * p.worker_reals;
    idx slices = POINTS / p.rows;
    p.x.to = scratch + round_up((POINTS + 1) * LANES * p.pitch, 16), p.dy.to = p.x.to + p.rows * POINTS * p.x.element;
    for (idx item = begin; item < end; item++) {
        idx block = item / slices, strip0 = block * p.block_strips, strips = MIN(p.strips, strip0 + p.block_strips);
        p.row = item % slices * p.rows;
        for (p.first = 0; p.first < p.tiling.count; p.first += p.chunk) {
            p.tiles = MIN(p.chunk, p.tiling.count - p.first);
            for (idx from = 0; from < p.tiles; from += WEIGHT_PIECE_TILES) {
                for (idx part = strip0; part < strips; part++) transform_piece(&p, from, part, scratch);
                for (idx part = 0; part < p.panels; part++) transform_piece(&p, from, p.strips + part, scratch);
            }
            for (idx e = p.row * POINTS; e < (p.row + p.rows) * POINTS; e++)
                multiply_element(&p, e, 0, strip0, p.sums + block * p.block_reals);
        }
    }
}

static void finish_panels(void *arg, idx begin, idx end, int worker) {
    (void)worker;
    const struct winograd_weight *p = arg;
    for (idx item = begin; item < end; item++) {
        idx block = item / p->panels, f = item % p->panels * p->height, c = block * p->block_strips * NR;
        finish_weights(p, f, MIN(p->height, p->F - f), c, MIN(p->block_strips * NR, p->lanes - c),
                       p->sums + block * p->block_reals + f * p->block_strips * NR);
    }
}

static int sum_by_slices(struct winograd_weight p, idx chunk) {
    idx threads = cnn_get_num_threads();
    p.chunk = chunk, p.rows = threads > 3 ? 1 : POINTS / threads;
    p.x.element = p.strips * p.chunk * NR + 16, p.dy.element = round_up(p.chunk * p.F, 16) + 16;
    p.block_panels = p.panels, p.block_strips = ceil_div(p.strips, ceil_div(threads, POINTS));
    idx blocks = ceil_div(p.strips, p.block_strips), items = blocks * POINTS / p.rows, zeros = round_up(p.pitch, 16);
    p.sums_element = p.panels * p.height * p.block_strips * NR + 16, p.block_reals = ELEMENTS * p.sums_element;
    idx grain = grain_of(0.1 * (double)(p.rows * POINTS * p.sums_element) * (double)p.tiling.count);
    p.worker_reals = round_up((POINTS + 1) * LANES * p.pitch, 16) + p.rows * POINTS * (p.x.element + p.dy.element);
    idx sums = blocks * p.block_reals, workers = parallel_workers(items, grain);
    REAL *shared = scratch_take(sizeof(REAL) * (size_t)(zeros + sums + workers * p.worker_reals));
    if (!shared) return CNN_NO_MEMORY;
    memset(shared, 0, sizeof(REAL) * (size_t)zeros);
    p.x.plane.zeros = p.dy.plane.zeros = shared;
    p.sums = shared + zeros, p.scratch = p.sums + sums;
    parallel_for(items, grain, sum_slices, &p);
    parallel_for(blocks * p.panels, grain_of((double)(p.block_reals / p.panels)), finish_panels, &p);
    scratch_give(shared);
    return CNN_OK;
}

/* A chunk of transformed tiles and its sums: in L2 where they can be, unless the tiles would be too few for the sums that each
   chunk reads and writes again. */
enum { WEIGHT_CHUNK_REALS = 1 << 20, SMALL_CHUNK_REALS = 192 << 10, SMALL_SUMS_REALS = 3 << 18 };

static int winograd_sum(struct winograd_weight p) {
    p.height = panel_height(p.F), p.panels = ceil_div(p.F, p.height), p.strips = ceil_div(p.lanes, NR);
    idx runs = MIN(WEIGHT_PIECE_TILES, WEIGHT_PIECE_TILES / p.tiling.columns + 2);   /* in a piece, at most */
    p.pitch = (WEIGHT_PIECE_TILES + runs) * TILE + VL;
    idx tile = ELEMENTS * (p.strips * NR + p.F), tiles = p.tiling.count;
    int small = ELEMENTS * p.strips * NR * p.F <= SMALL_SUMS_REALS;
    if (tiles <= MAX(128, WEIGHT_CHUNK_REALS / tile)) return sum_by_blocks(p);
    return sum_by_slices(p, block_of(tiles, small ? MAX(32, SMALL_CHUNK_REALS / tile) : MAX(128, WEIGHT_CHUNK_REALS / tile)));
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
