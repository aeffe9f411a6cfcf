/* Winograd's minimal filtering F(4 x 4, 3 x 3): a 4 x 4 tile of the output from a 6 x 6 tile of the input, with 36
   multiplications where the definition takes 144. Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks", 2016.

       y = A'[(G g G') * (B' d B)] A      (' transposes, * multiplies element by element)

   In one dimension, the product of two polynomials g (degree 2) and y (degree 3) is known from its values at five points and
   its leading coefficient ("infinity"); correlation is the transpose of that product. For the points p = 0, a, -a, b, -b:

       row p of A  = 1, p, p^2, p^3;   row p of G = (1, p, p^2) / N(p), where N(p) = product of p - q over the other points q;
       row p of B' = coefficients of the product of x - q over q != p; the last one: of x - q over all five;
       the rows of infinity in A and G: 0, 0, 0, 1 and 0, 0, 1.

   a = sqrt(1/2), b = sqrt(2): because a b = 1 the entries stay near 1, and with them the rounding errors, several times less
   than with 1 and 2. Then N(0) = 1, N(a) = N(-a) = -3/2, N(b) = N(-b) = 6. tests/test_winograd.py derives the rows again.

   The sum over channels makes of each of the 36 elements a matrix product: weights (F x C) times tiles (C x tiles). Tiles are
   numbered along the rows of tiles, over all images, and worked on in pieces.

   A larger kernel is a sum of parts, kernels of 3 x 3 whose images are shifted by threes: more channels, for all that follows.
   What a part has beyond the kernel is zero; so are its weights at infinity, which are left out: 11 * 11 multiplications for
   5 x 5 taps, of 400. */

enum { TILE = 4, POINTS = 6, ELEMENTS = POINTS * POINTS, TAPS = 3 };

static const REAL ROOT_HALF = (REAL)0.70710678118654752440, ROOT_TWO = (REAL)1.41421356237309504880;

/* ---- one dimension ---- */

INLINE void transform_input(vr *d) {   /* B' d */
    vr d0 = d[0], d1 = d[1], d2 = d[2], d3 = d[3], d4 = d[4], d5 = d[5];
    vr even_a = d4 - 2 * d2, odd_a = d3 - 2 * d1, even_b = d4 - (REAL)0.5 * d2, odd_b = d3 - (REAL)0.5 * d1;
    d[0] = d0 - (REAL)2.5 * d2 + d4;
    d[1] = even_a + ROOT_HALF * odd_a;
    d[2] = even_a - ROOT_HALF * odd_a;
    d[3] = even_b + ROOT_TWO * odd_b;
    d[4] = even_b - ROOT_TWO * odd_b;
    d[5] = d1 - (REAL)2.5 * d3 + d5;
}

INLINE void transform_output(vr *m) {   /* A' m: four results */
    vr even_a = m[1] + m[2], odd_a = ROOT_HALF * (m[1] - m[2]), even_b = m[3] + m[4], odd_b = ROOT_TWO * (m[3] - m[4]);
    m[0] = m[0] + even_a + even_b;
    m[1] = odd_a + odd_b;
    m[2] = (REAL)0.5 * even_a + 2 * even_b;
    m[3] = (REAL)0.5 * odd_a + 2 * odd_b + m[5];
}

INLINE void transform_filter(const vr *g, vr *u) {   /* G g */
    const REAL ca = (REAL)(-2 / 3.), cb = (REAL)(1 / 6.);
    vr even_a = ca * (g[0] + (REAL)0.5 * g[2]), odd_a = (ca * ROOT_HALF) * g[1];
    vr even_b = cb * (g[0] + 2 * g[2]), odd_b = (cb * ROOT_TWO) * g[1];
    u[0] = g[0];
    u[1] = even_a + odd_a;
    u[2] = even_a - odd_a;
    u[3] = even_b + odd_b;
    u[4] = even_b - odd_b;
    u[5] = g[2];
}

/* ---- lanes ---- */

/* Every fourth real from s on, from s + 1 on, ... (the first n of these four) */
INLINE void split_phases(const int n, const REAL *s, vr *d) {
    vr a = load(s), b = load(s + VL), c = load(s + 2 * VL), e = load(s + 3 * VL);
    vr even_ab = SHUFFLE(a, b, EVEN_LANES), even_ce = SHUFFLE(c, e, EVEN_LANES);
    vr odd_ab = SHUFFLE(a, b, ODD_LANES), odd_ce = SHUFFLE(c, e, ODD_LANES);
    d[0] = SHUFFLE(even_ab, even_ce, EVEN_LANES);
    d[1] = SHUFFLE(odd_ab, odd_ce, EVEN_LANES);
    if (n == 2) return;
    d[2] = SHUFFLE(even_ab, even_ce, ODD_LANES);
    d[3] = SHUFFLE(odd_ab, odd_ce, ODD_LANES);
}

INLINE void join_phases(const vr *s, REAL *d) {
    vr low_02 = SHUFFLE(s[0], s[2], ZIP_LOW), high_02 = SHUFFLE(s[0], s[2], ZIP_HIGH);
    vr low_13 = SHUFFLE(s[1], s[3], ZIP_LOW), high_13 = SHUFFLE(s[1], s[3], ZIP_HIGH);
    store(d, SHUFFLE(low_02, low_13, ZIP_LOW));
    store(d + VL, SHUFFLE(low_02, low_13, ZIP_HIGH));
    store(d + 2 * VL, SHUFFLE(high_02, high_13, ZIP_LOW));
    store(d + 3 * VL, SHUFFLE(high_02, high_13, ZIP_HIGH));
}

/* ---- tiles ---- */

struct tiling { idx rows, columns, count; };   /* of tiles in an image; tiles in all images */

static struct tiling tiling_of(idx N, idx OH, idx OW) {
    idx rows = ceil_div(OH, TILE), columns = ceil_div(OW, TILE);
    return (struct tiling){rows, columns, N * rows * columns};
}

/* Tiles beside each other in one image. */
struct tile_run { idx image, row, column, length; };

static struct tile_run run_at(const struct tiling *t, idx first, idx at, idx end) {
    idx tile = first + at, column = tile % t->columns;
    return (struct tile_run){.image = tile / t->columns / t->rows, .row = tile / t->columns % t->rows, .column = column,
                             .length = MIN(t->columns - column, end - at)};
}

static struct tile_run run_after(const struct tiling *t, struct tile_run r, idx left) {
    int last = r.row + 1 == t->rows;
    return (struct tile_run){.image = r.image + last, .row = last ? 0 : r.row + 1, .length = MIN(t->columns, left)};
}

/* Lines of an image plane, zero outside. */
struct plane { const REAL *pixels; idx H, W; const REAL *zeros; };

INLINE void fill_zeros(const int lines, REAL *z, idx pitch, idx n) {
    for (int i = 0; n > 0 && i < lines; i++) {
        store(z + i * pitch, (vr){0});   /* alone, so that no function is called for it */
        for (idx k = VL; k < n; k += VL) store(z + i * pitch + k, (vr){0});
    }
}

INLINE vr load_every_second(const REAL *line, idx left) {
    vr a = load_part(line, left), b = left > VL ? load_part(line + VL, left - VL) : (vr){0};
    return SHUFFLE(a, b, EVEN_LANES);
}

/* The transform down n columns from `column` on of `height` rows from `row` on, every `step`th of both: lines, one per point.
   Writes whole vectors. `next`, where it is not NULL, are the same lines without their first tile. */
INLINE void transform_columns(void (*const transform)(vr *), const int points, const int height, const int step,
                              const struct plane *s, idx row, idx column, idx n, REAL *z, REAL *next, idx pitch) {
    const REAL *line[POINTS];
    v4 before[POINTS];
    idx begin = MIN(n, MAX(0, (step - 1 - column) / step)), left = MAX(0, s->W - column - begin * step);
    for (int i = 0; i < height; i++, row += step)
        line[i] = row >= 0 && row < s->H ? s->pixels + row * s->W + column + begin * step : s->zeros;
    fill_zeros(points, z, pitch, begin);
    if (next) fill_zeros(points, next, pitch, begin - TILE);
#pragma GCC unroll 6
    for (int i = 0; next && i < points; i++) before[i] = *(v4 *)(next + i * pitch - TILE);
    for (idx k = begin; k < n; k += VL, left = MAX(0, left - step * VL)) {
        vr d[POINTS];
#pragma GCC unroll 6
        for (int i = 0; i < height; i++) {
            d[i] = step == 1 ? load_part(line[i], left) : load_every_second(line[i], left);
            line[i] += step * VL;
        }
        transform(d);
#pragma GCC unroll 6
        for (int i = 0; i < points; i++) {
            store(z + i * pitch + k, d[i]);
            if (next) store(next + i * pitch + k - TILE, d[i]);
        }
    }
#pragma GCC unroll 6
    for (int i = 0; next && i < points; i++) *(v4 *)(next + i * pitch - TILE) = before[i];
}

/* Rows of a plane that lies next to the one at work: too short, and too far from each other, for the hardware to see a pattern. */
INLINE void prefetch_rows(const REAL *pixels, idx rows, idx columns, idx pitch, const int writes) {
    for (idx i = 0; i < rows; i++, pixels += pitch)
        for (idx k = 0; k < columns; k += 64 / sizeof(REAL))
            if (writes) __builtin_prefetch(pixels + k, 1);
            else __builtin_prefetch(pixels + k);
}

/* ---- forward, and backward-input: the same with rotated, transposed weights and padding K - 1 - p ---- */

/* A part of the kernel in one dimension: `count` taps from tap `first` on, `stride` apart; the first one meets pixel `start`. */
struct taps { idx start, first, stride, count; };
struct part { struct taps rows, columns; };

/* A piece of transformed input, with a block of weights and of products, fits into L2; a chunk and small weights into L3. Blocks
   of large weights do not fit anyway: there twice as many rows, for which the input comes from L3 half as often. */
enum { PIECE_TILES = 64, PIECE_REALS = 72 << 10, BLOCK_ROWS = 28, LARGE_BLOCK_ROWS = 56 };
enum { SMALL_WEIGHTS = 1 << 20, CHUNK_REALS = 4 << 20 };
enum { CHAIN = 128 };   /* channels summed in one go: with longer chains the error would grow */
enum { LONGEST = 12, MOST_TAPS = LONGEST * LONGEST, MOST_PARTS = MOST_TAPS / 9 };   /* of a kernel; of weights at a time */
enum { LANES_OF_PANEL = (MR + 15) / 16 * 16 };

struct winograd {
    const struct filter *filter;
    idx C, H, W, F, OH, OW, step;                  /* step: from a pixel of a tile to the next one */
    const REAL *x; idx x_image;
    const REAL *w; idx w_out, w_in, KH, KW;        /* weight (f, c, KH, KW) */
    idx parts; struct part part[MOST_PARTS];
    idx outputs;                                   /* 1: the sum of all parts; else each is one of its own: 2 take turns in
                                                      the columns of y, 4 in the columns and in the rows */
    const REAL *bias;
    REAL *y; idx y_image, y_channel, y_row;

    struct tiling tiling;
    idx terms, seen;                   /* parts, channels; of the input, one part does where all see the same pixels */
    idx first, pieces;                 /* the chunk at work: its first tile, its pieces */
    idx piece;                         /* tiles of a piece */
    idx height, block, blocks;         /* output channels: rows of a panel, rows of a block, blocks */
    idx elements, v_element, u_element, m_element, line, lines;
    idx v_reals, u_reals, m_reals;     /* input of a piece, weights of a block, products of a block and a piece */
    REAL *u, *v, *zeros, *scratch;
    idx worker_reals;
};

/* F(4 x 4, taps x taps): the transforms of a term of a piece of tiles, of a panel of weights, of a channel of the output. */
struct filter {
    int points, taps;
    void (*input)(const struct winograd *p, idx first, idx tiles, idx term, REAL *v, REAL *scratch);
    void (*weights)(const struct winograd *p, idx f, idx m, REAL *u);
    void (*output)(const struct winograd *p, idx first, idx tiles, idx f, const REAL *m, REAL *lines);
};

/* One term of the tiles from `first` on, to v: (element, strip, term, NR). z: a line for each point, along the pixels of all
   tiles; `next` the same again, stored one tile to the left: reading back what was just written, out of step, would wait for it. */
INLINE void transform_tiles(void (*const transform)(vr *), const int points, const int step, const struct winograd *p, idx first,
                            idx tiles, idx term, REAL *v, REAL *scratch) {
    const struct part *part = &p->part[term / p->C];
    REAL *z = scratch, *next = scratch + points * p->line;
    struct tile_run r = run_at(&p->tiling, first, 0, tiles);
    for (idx at = 0; at < tiles; at += r.length, r = run_after(&p->tiling, r, tiles - at)) {
        struct plane plane = {p->x + r.image * p->x_image + term % p->C * p->H * p->W, p->H, p->W, p->zeros};
        idx row = r.row * TILE * step + part->rows.start, column = r.column * TILE * step + part->columns.start;
        idx n = r.length * TILE + points - TILE, next_channel = (p->H + MAX(0, row)) * p->W + MAX(0, column);
        if (term % p->C + 1 < p->C && term / p->C % 2 == 0)   /* the next part sees much the same */
            prefetch_rows(plane.pixels + next_channel, points, n * step, step * p->W, 0);
        transform_columns(transform, points, points, step, &plane, row, column, n, z + at * TILE, next + at * TILE, p->line);
    }
    idx lanes = round_up(tiles, NR), end = tiles * TILE + points - TILE;
    if (tiles < lanes) {   /* lanes without a tile: see scratch_take */
        fill_zeros(points, z + end, p->line, lanes * TILE - end);
        fill_zeros(points, next + end - TILE, p->line, lanes * TILE - end + TILE);
    }
    for (idx q = 0; q < lanes; q += VL)
        for (int i = 0; i < points; i++) {
            vr d[POINTS];
            split_phases(4, z + i * p->line + q * TILE, d);
            split_phases(2, next + i * p->line + q * TILE, d + 4);
            transform(d);
            REAL *to = v + i * points * p->v_element + (q / NR * p->seen + term) * NR + q % NR;
#pragma GCC unroll 6
            for (int j = 0; j < points; j++) store(to + j * p->v_element, d[j]);
        }
}

/* The terms of an output, less those at the ends whose weights are 0: a part with fewer taps is that at infinity. */
struct terms { idx begin, end; };
static struct terms terms_of(const struct winograd *p, idx output, idx element) {
    idx points = p->filter->points, each = p->parts / p->outputs, begin = output * each, end = begin + each;
    idx rows = element / points == points - 1 ? p->filter->taps : 0, columns = element % points == points - 1 ? p->filter->taps : 0;
    while (begin < end && (p->part[begin].rows.count < rows || p->part[begin].columns.count < columns)) begin++;
    while (begin < end && (p->part[end - 1].rows.count < rows || p->part[end - 1].columns.count < columns)) end--;
    return (struct terms){begin * p->C, end * p->C};
}

/* Whether anybody reads the weights of a part at a point of the rows and one of the columns. */
INLINE int is_read(const struct winograd *p, idx part, idx row, idx column) {
    struct terms t = terms_of(p, part / (p->parts / p->outputs), row * p->filter->points + column);
    return part * p->C >= t.begin && part * p->C < t.end;
}

/* Where the taps of a part are in the packed weights of a channel; -1: nowhere, which is 0. */
INLINE void find_taps(const struct winograd *p, const struct part *part, const int taps, idx ld, idx at[TAPS][TAPS]) {
    const struct taps rows = part->rows, columns = part->columns;
    for (int i = 0; i < taps; i++)
        for (int j = 0; j < taps; j++)
            at[i][j] = i < rows.count && j < columns.count
                     ? ((rows.first + i * rows.stride) * p->KW + columns.first + j * columns.stride) * ld : -1;
}

/* The panel of m output channels from f on: (element, term, m). Whole vectors: the next terms overwrite what is too much, but not
   beyond the part: the next one is there already. */
INLINE void transform_panel(void (*const transform)(const vr *, vr *), const int points, const int taps,
                            const struct winograd *p, idx f, idx m, REAL *u) {
    const idx ld = LANES_OF_PANEL, element = p->u_element, all = p->KH * p->KW, most = MOST_TAPS / all;
    REAL weights[MOST_TAPS * LANES_OF_PANEL] __attribute__((aligned(64))) = {0};   /* lanes past m: not what lay there */
    for (idx c0 = 0; c0 < p->C; c0 += most) {
        idx channels = MIN(most, p->C - c0);
        const REAL *w = p->w + f * p->w_out + c0 * p->w_in;
        if (p->w_in == all) pack(m, channels * all, w, p->w_out, 1, weights, ld);
        else for (idx c = 0; c < channels; c++) {
            prefetch_rows(w + (c + most) * p->w_in, 1, m * p->w_out, 0, 0);
            pack(m, all, w + c * p->w_in, p->w_out, 1, weights + c * all * ld, ld);
        }
        for (idx k = 0; k < p->parts; k++) {
            idx at[TAPS][TAPS];
            find_taps(p, &p->part[k], taps, ld, at);
            int high = points - !is_read(p, k, points - 1, 0), wide = points - !is_read(p, k, 0, points - 1);
            for (idx c = 0; c < channels; c++)
                for (idx l = 0; l < m; l += VL) {
                    const REAL *tap = weights + c * all * ld + l;
                    vr half[TAPS][POINTS], g[TAPS], d[POINTS];
#pragma GCC unroll 3
                    for (int i = 0; i < taps; i++) {
#pragma GCC unroll 3
                        for (int j = 0; j < taps; j++) g[j] = at[i][j] < 0 ? (vr){0} : load(tap + at[i][j]);
                        transform(g, half[i]);
                    }
                    REAL *to = u + (k * p->C + c0 + c) * m + l;
                    idx room = (p->C - c0 - c) * m - l;
#pragma GCC unroll 6
                    for (int j = 0; j < points; j++) {
                        if (j == wide) break;
#pragma GCC unroll 3
                        for (int i = 0; i < taps; i++) g[i] = half[i][j];
                        transform(g, d);
#pragma GCC unroll 6
                        for (int i = 0; i < points; i++)
                            if (i < high) store_part(to + (i * points + j) * element, d[i], room);
                    }
                }
        }
    }
}

/* Of a block: blocks differ by a panel at most, so that threads have equal shares. */
static idx first_channel(const struct winograd *p, idx block) {
    return MIN(p->F, ceil_div(p->F, p->height) * block / p->blocks * p->height);
}

static void transform_block(const struct winograd *p, idx block, REAL *u) {
    idx end = first_channel(p, block + 1);
    for (idx f = first_channel(p, block); f < end; f += p->height, u += p->elements * p->u_element)
        p->filter->weights(p, f, MIN(p->height, end - f), u);
}

/* The tiles of one output channel as four lines of pixels. */
INLINE void transform_products(void (*const transform)(vr *), const int points, const struct winograd *p, idx tiles, REAL bias,
                               const REAL *m, REAL *lines) {
    for (idx q = 0; q < tiles; q += VL) {
        vr columns[TILE][POINTS];
#pragma GCC unroll 6
        for (int j = 0; j < points; j++) {
            vr d[POINTS];
#pragma GCC unroll 6
            for (int i = 0; i < points; i++) d[i] = load(m + (i * points + j) * p->m_element + q);
            transform(d);
#pragma GCC unroll 4
            for (int i = 0; i < TILE; i++) columns[i][j] = d[i];
        }
#pragma GCC unroll 4
        for (int i = 0; i < TILE; i++) {
            transform(columns[i]);
            for (int j = 0; j < TILE; j++) columns[i][j] += bias;
            join_phases(columns[i], lines + i * p->line + q * TILE);
        }
    }
}

static idx rows_of_outputs(const struct winograd *p) { return MAX(1, p->outputs / 2); }

/* The rows that the next channel is written to. */
static void prefetch_output(const struct winograd *p, idx first, idx tiles, idx f) {
    idx across = TILE * MIN(p->outputs, 2), down = TILE * rows_of_outputs(p);
    struct tile_run r = run_at(&p->tiling, first, 0, tiles);
    for (idx at = 0; at < tiles; at += r.length, r = run_after(&p->tiling, r, tiles - at)) {
        REAL *y = p->y + r.image * p->y_image + (f + 1) * p->y_channel + r.row * down * p->y_row + r.column * across;
        prefetch_rows(y, MIN(down, p->OH - r.row * down), r.length * across, p->y_row, 1);
    }
}

/* From the lines into the images. */
static void write_lines(const struct winograd *p, idx first, idx tiles, idx f, const REAL *lines) {
    idx rows = rows_of_outputs(p), down = TILE * rows, across = TILE * MIN(p->outputs, 2);
    struct tile_run r = run_at(&p->tiling, first, 0, tiles);
    for (idx at = 0; at < tiles; at += r.length, r = run_after(&p->tiling, r, tiles - at)) {
        REAL *y = p->y + r.image * p->y_image + f * p->y_channel + r.row * down * p->y_row + r.column * across;
        idx n = MIN(r.length * across, p->OW - r.column * across);
        for (idx o = 0; o < rows; o++) {
            const REAL *line = lines + o * 2 * TILE * p->line + at * TILE;
            for (idx i = o; i < MIN(down, p->OH - r.row * down); i += rows, line += p->line)
                if (p->outputs == 1) copy_reals(y + i * p->y_row, line, n);
                else interleave_two(y + i * p->y_row, n, line, line + TILE * p->line);
        }
    }
}

static idx tiles_of_piece(const struct winograd *p, idx piece) {
    return MIN(p->piece, p->tiling.count - p->first - piece * p->piece);
}

/* All parts of a channel, then the next channel: its pixels are at hand. */
static idx term_at(const struct winograd *p, idx item) {
    idx parts = p->seen / p->C;
    return item % parts * p->C + item / parts;
}

/* A block of output channels of a piece; products m: (element, output, channel, tile). */
static void multiply_block(const struct winograd *p, idx block, idx piece, const REAL *u, const REAL *v, REAL *m) {
    idx f = first_channel(p, block), rows = first_channel(p, block + 1) - f;
    idx tiles = tiles_of_piece(p, piece), output_rows = p->block * p->piece;
    for (idx e = 0; e < p->elements; e++)
        for (idx o = 0; o < p->outputs; o++) {
            struct terms s = terms_of(p, o, e);
            idx longest = block_of(s.end - s.begin, CHAIN), unseen = p->seen < p->terms ? o * p->C : 0;
            for (idx t = 0; t < tiles; t += NR)
                for (idx k = s.begin; k == s.begin || k < s.end; k += longest)   /* also nothing at all: then the sums are 0 */
                    for (idx i = 0; i < rows; i += p->height) {
                        idx height = MIN(p->height, rows - i);
                        micro_kernels[height](
                            MIN(longest, s.end - k), u + (i / p->height * p->elements + e) * p->u_element + k * height,
                            v + e * p->v_element + t * p->seen + (k - unseen) * NR, NR, NULL, VL,
                            m + e * p->m_element + o * output_rows + i * p->piece + t, p->piece, NULL, k > s.begin);
                    }
        }
    for (idx i = 0; i < rows; i++) {
        prefetch_output(p, p->first + piece * p->piece, tiles, f + i);
        p->filter->output(p, p->first + piece * p->piece, tiles, f + i, m + i * p->piece, m + p->m_reals);
    }
}

/* Small weights are transformed once. Then a worker takes the blocks of whole pieces, and all that is at hand stays in its cache;
   only where the shares of two workers meet are the pixels of a piece transformed twice. */
static void transform_blocks(void *arg, idx begin, idx end, int worker) {
    (void)worker;
    const struct winograd *p = arg;
    for (idx block = begin; block < end; block++) transform_block(p, block, p->u + block * p->u_reals);
}

static void multiply_pieces(void *arg, idx begin, idx end, int worker) {
    const struct winograd *p = arg;
    REAL *m = p->scratch + worker * p->worker_reals, *lines = m + p->m_reals, *v = lines + p->lines * p->line;
    idx ready = -1;
    for (idx item = begin; item < end; item++) {
        idx piece = item / p->blocks, block = item % p->blocks;
        for (idx i = 0; i < p->seen && piece != ready; i++)
            p->filter->input(p, p->first + piece * p->piece, tiles_of_piece(p, piece), term_at(p, i), v, lines);
        ready = piece;
        multiply_block(p, block, piece, p->u + block * p->u_reals, v, m);
    }
}

/* Large weights are transformed block by block where they are used, for a whole chunk of transformed input. */
static void transform_pieces(void *arg, idx begin, idx end, int worker) {
    const struct winograd *p = arg;
    for (idx item = begin; item < end; item++) {
        idx piece = item / p->seen;
        p->filter->input(p, p->first + piece * p->piece, tiles_of_piece(p, piece), term_at(p, item % p->seen),
                         p->v + piece * p->v_reals, p->scratch + worker * p->worker_reals);
    }
}

static void multiply_blocks_of_pieces(void *arg, idx begin, idx end, int worker) {
    const struct winograd *p = arg;
    REAL *m = p->scratch + worker * p->worker_reals, *u = m + p->m_reals + p->lines * p->line;
    idx ready = -1;
    for (idx item = begin; item < end; item++) {
        idx block = item / p->pieces, piece = item % p->pieces;
        if (block != ready) transform_block(p, block, u);
        ready = block;
        multiply_block(p, block, piece, u, p->v + piece * p->v_reals, m);
    }
}

static int all_see_the_same(const struct winograd *p) {
    int same = 1;
    for (idx k = 1; k < p->parts; k++)
        same &= p->part[k].rows.start == p->part->rows.start && p->part[k].columns.start == p->part->columns.start;
    return same;
}

static int winograd(struct winograd p) {
    idx tiles = p.tiling.count, E = p.elements = p.filter->points * p.filter->points;
    if (!tiles || !p.C || !p.F) return CNN_OK;
    p.terms = p.parts * p.C, p.seen = all_see_the_same(&p) ? p.C : p.terms;
    p.piece = MIN(MAX(NR, MIN(PIECE_TILES, PIECE_REALS / (E * p.seen) / NR * NR)), round_up(tiles, NR));
    idx all_pieces = ceil_div(tiles, p.piece);
    int whole = E * p.terms * p.F <= SMALL_WEIGHTS && all_pieces >= 2 * cnn_get_num_threads();
    p.height = panel_height(p.F), p.block = (whole ? BLOCK_ROWS : LARGE_BLOCK_ROWS) / p.outputs;
    p.block = MAX(1, p.block / p.height) * p.height, p.blocks = ceil_div(p.F, p.block);
    p.line = round_up((p.piece + 1) * TILE + 2 * VL, 16), p.lines = MAX(2 * p.filter->points, p.outputs * TILE);
    p.v_element = p.seen * p.piece + 16;                           /* + 16: not all into the same sets of a cache */
    p.u_element = round_up(p.terms * p.height, 16) + 16, p.m_element = p.outputs * p.block * p.piece + 16;
    p.v_reals = E * p.v_element, p.u_reals = p.block / p.height * E * p.u_element, p.m_reals = E * p.m_element;

    idx pieces = block_of(all_pieces, MAX(1, CHUNK_REALS / p.v_reals));
    idx shared_v = whole ? 0 : pieces * p.v_reals, shared_u = whole ? p.blocks * p.u_reals : 0, zeros = p.step * p.line;
    p.worker_reals = p.m_reals + p.lines * p.line + (whole ? p.v_reals : p.u_reals);
    double work = 0.1 * (double)(E * p.block * p.piece) * (double)p.terms;
    idx grain_in = grain_of(30 * (double)p.piece), grain_out = grain_of(work), items = (whole ? all_pieces : pieces) * p.blocks;
    idx workers = MAX(parallel_workers(items, grain_out), whole ? 1 : parallel_workers(pieces * p.seen, grain_in));
    REAL *shared = scratch_take(sizeof(REAL) * (size_t)(zeros + shared_u + shared_v + workers * p.worker_reals));
    if (!shared) return CNN_NO_MEMORY;
    memset(shared, 0, sizeof(REAL) * (size_t)zeros);
    p.zeros = shared, p.u = shared + zeros, p.v = p.u + shared_u, p.scratch = p.v + shared_v;
    if (whole) {
        p.pieces = all_pieces;
        parallel_for(p.blocks, grain_of(30 * (double)(p.block * p.terms)), transform_blocks, &p);
        parallel_for(items, grain_out, multiply_pieces, &p);
    }
    for (; !whole && p.first < tiles; p.first += pieces * p.piece) {
        p.pieces = MIN(pieces, ceil_div(tiles - p.first, p.piece));
        parallel_for(p.pieces * p.seen, grain_in, transform_pieces, &p);
        parallel_for(p.pieces * p.blocks, grain_out, multiply_blocks_of_pieces, &p);
    }
    scratch_give(shared);
    return CNN_OK;
}

/* ---- three taps a part ---- */

static void input_of_three(const struct winograd *p, idx first, idx tiles, idx term, REAL *v, REAL *scratch) {
    transform_tiles(transform_input, POINTS, 1, p, first, tiles, term, v, scratch);
}
static void weights_of_three(const struct winograd *p, idx f, idx m, REAL *u) {
    transform_panel(transform_filter, POINTS, TAPS, p, f, m, u);
}
static void output_of_three(const struct winograd *p, idx first, idx tiles, idx f, const REAL *m, REAL *lines) {
    transform_products(transform_output, POINTS, p, tiles, p->bias ? p->bias[f] : 0, m, lines);
    write_lines(p, first, tiles, f, lines);
}
static const struct filter three_taps = {POINTS, TAPS, input_of_three, weights_of_three, output_of_three};

static struct taps three_of(idx K, idx from, idx padding, int rotated) {
    return (struct taps){from - padding, rotated ? K - 1 - from : from, rotated ? -1 : 1, MIN(TAPS, K - from)};
}
/* To and fro, so that of 2 x 2 parts those with fewer taps in one dimension are at the ends, which terms_of leaves out. */
static void add_parts(struct winograd *p, idx top, idx left, int rotated) {
    idx last = (p->KW - 1) / TAPS * TAPS;
    for (idx h = 0; h < p->KH; h += TAPS)
        for (idx w = 0; w < p->KW; w += TAPS) {
            struct taps columns = three_of(p->KW, h / TAPS % 2 ? w : last - w, left, rotated);
            p->part[p->parts++] = (struct part){three_of(p->KH, h, top, rotated), columns};
        }
}

static int winograd_forward(const struct conv_shape *s, const REAL *x, const REAL *w, const REAL *b, REAL *y) {
    idx C = s->C / s->groups, F = s->F / s->groups, taps = s->KH * s->KW;
    int status = CNN_OK;
    for (idx g = 0; g < s->groups && status == CNN_OK; g++) {
        struct winograd p = {
            .filter = &three_taps, .C = C, .H = s->H, .W = s->W, .F = F, .OH = s->OH, .OW = s->OW, .step = 1,
            .x = x + g * C * s->H * s->W, .x_image = s->C * s->H * s->W, .outputs = 1,
            .w = w + g * F * C * taps, .w_out = C * taps, .w_in = taps, .KH = s->KH, .KW = s->KW, .bias = b ? b + g * F : NULL,
            .y = y + g * F * s->OH * s->OW, .y_image = s->F * s->OH * s->OW, .y_channel = s->OH * s->OW, .y_row = s->OW,
            .tiling = tiling_of(s->N, s->OH, s->OW)};
        add_parts(&p, s->top, s->left, 0);
        status = winograd(p);
    }
    return status;
}

static int winograd_backward_input(const struct conv_shape *s, const REAL *dy, const REAL *w, REAL *dx) {
    idx C = s->C / s->groups, F = s->F / s->groups, taps = s->KH * s->KW;
    int status = CNN_OK;
    for (idx g = 0; g < s->groups && status == CNN_OK; g++) {
        struct winograd p = {
            .filter = &three_taps, .C = F, .H = s->OH, .W = s->OW, .F = C, .OH = s->H, .OW = s->W, .step = 1,
            .x = dy + g * F * s->OH * s->OW, .x_image = s->F * s->OH * s->OW, .outputs = 1,
            .w = w + g * F * C * taps, .w_out = taps, .w_in = C * taps, .KH = s->KH, .KW = s->KW,
            .y = dx + g * C * s->H * s->W, .y_image = s->C * s->H * s->W, .y_channel = s->H * s->W, .y_row = s->W,
            .tiling = tiling_of(s->N, s->H, s->W)};
        add_parts(&p, s->KH - 1 - s->top, s->KW - 1 - s->left, 1);
        status = winograd(p);
    }
    return status;
}

#include "winograd_strided.c"
#include "winograd_weight.c"

/* Whether the filtering costs less than summing directly. In multiplications per pair of channels: the products, on whole
   vectors of tiles or, for the weights, of input channels; the transforms of tiles, shared by all channels on the other side;
   those of the weights. The constants are fitted to measured times, as is what a direct multiplication costs. */
enum winograd_pass { FORWARD, BACKWARD_INPUT, BACKWARD_WEIGHT };

static int winograd_fits(const struct conv_shape *s) {
    return REAL_IS_FLOAT && MIN(s->KH, s->KW) >= TAPS && MAX(s->KH, s->KW) <= LONGEST && s->SH * s->SW * s->DH * s->DW == 1
        && MIN(s->C, s->F) / s->groups >= 16;
}

static int winograd_pays(const struct conv_shape *s, enum winograd_pass pass) {
    if (!winograd_fits(s) || cnn_get_exact()) return 0;
    idx OH = pass == BACKWARD_INPUT ? s->H : s->OH, OW = pass == BACKWARD_INPUT ? s->W : s->OW;
    struct tiling tiling = tiling_of(s->N, OH, OW);
    double tiles = (double)tiling.count, pixels = (double)(s->N * OH * OW), parts = (double)kernel_of(s->KH, s->KW).parts;
    double in = (double)(s->C / s->groups), out = (double)(s->F / s->groups);
    double padded = pass == BACKWARD_WEIGHT ? tiles * (double)round_up((idx)in, NR) / in : (double)round_up((idx)tiles, NR);
    if (pass == BACKWARD_INPUT) in = out, out = (double)(s->C / s->groups);
    double direct = (parts > 1 ? 1 : 1.25) * (double)(s->KH * s->KW) * pixels;
    return ELEMENTS * parts * padded + 600 * tiles * (parts / out + 1 / in) + 400 * parts < direct;
}

/* The same for stride 2, where K taps take K + 6 products for four outputs in each dimension. Large weights are transformed for
   each chunk of tiles anew. */
static int winograd_strided_pays(const struct conv_shape *s, enum winograd_pass pass) {
    int fits = s->SH == 2 && s->SW == 2 && s->DH == 1 && s->DW == 1 && MIN(s->KH, s->KW) >= 3 && MAX(s->KH, s->KW) <= 2 * PAIR;
    if (!REAL_IS_FLOAT || !fits || MIN(s->C, s->F) / s->groups < 16 || cnn_get_exact()) return 0;
    int back = pass == BACKWARD_INPUT;
    struct tiling tiling = tiling_of(s->N, back ? ceil_div(s->H, 2) : s->OH, back ? ceil_div(s->W, 2) : s->OW);
    double products = (double)((s->KH + 6) * (s->KW + 6) * round_up(tiling.count, NR));
    double in = (double)((back ? s->F : s->C) / s->groups), out = (double)((back ? s->C : s->F) / s->groups);
    double views = back && all_see_the_same_dy(s) ? 1 : 4, parts = back && views > 1 ? 2 : 4;   /* parts: of one pass */
    double transforms = 480 * (double)tiling.count * (views / out + (back ? 4 : 1) / in);
    double terms = PAIR_POINTS * PAIR_POINTS * in, chunks = terms * MIN(views, parts) * (double)tiling.count / CHUNK_REALS;
    double weights = terms * parts * out <= SMALL_WEIGHTS ? 2400 : 3000 * MAX(1, chunks);
    return products + transforms + weights < (double)(s->KH * s->KW * s->N * s->OH * s->OW);
}
