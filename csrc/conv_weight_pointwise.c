/* The gradient of the weights of a 1x1 convolution without padding: dw[f, c] = sum over pixels of dy[f, pixel] x[c, pixel].

   Only one operand is transposed, a block of pixels at a time, into strips with its channels as lanes: the one of fewer
   channels, or x where a stride has to skip pixels. Of the other one the products need single numbers, and these they read
   where they lie. */

/* One of the two operands: (N, groups, channels, plane). */
struct planes {
    const REAL *at;
    idx channels, plane, row, step;   /* from a row of pixels to the next, from a pixel to the next */
    const idx *pixel;                 /* where those of a block lie */
};

struct pixel_sum {
    const struct conv_shape *s;
    struct planes rows, lanes;       /* those that stay, and those that are transposed */
    int x_in_rows, strided;
    REAL *dw;
    idx images, run, runs, blocks;   /* a block of pixels: whole images or a run of one, cut into so many; all blocks */
    idx some, somes;                 /* lanes that are in strips at a time; how many times */
    idx parts, splits;               /* of the blocks, each with sums of its own; of the rows, for several threads */
    idx width;                       /* lanes, rounded up to whole vectors */
    idx planes_ahead;                /* asked for during one line of pixels */
    REAL *sums, *scratch;            /* (group, part, row, width) */
    idx line_reals, worker_reals;
};

/* ---- a block of pixels ---- */

struct pixel_run { idx group, image, images, pixel, pixels, l0, l1; };   /* of each image; lanes [l0, l1) */

static struct pixel_run pixel_run_at(const struct pixel_sum *q, idx group, idx i) {
    idx l0 = i % q->somes * q->some, block = i / q->somes;
    idx image = block / q->runs * q->images, pixel = block % q->runs * q->run;
    return (struct pixel_run){group, image, MIN(q->images, q->s->N - image), pixel, MIN(q->run, q->s->OH * q->s->OW - pixel),
                              l0, MIN(q->lanes.channels, l0 + q->some)};
}

/* Channel c of a block, in its first image. */
static const REAL *channel_at(const struct pixel_sum *q, const struct planes *p, const struct pixel_run *b, idx c) {
    return p->at + ((b->image * q->s->groups + b->group) * p->channels + c) * p->plane + b->pixel / q->s->OW * p->row
         + b->pixel % q->s->OW * p->step;
}

/* Strips: NR channels per pixel, in the last one VL if that is enough. */
static void transpose_lanes(const struct pixel_sum *q, const struct pixel_run *b, REAL *line, REAL *d) {
    const struct conv_shape *s = q->s;
    for (idx l = b->l0; l < b->l1; l += NR) {
        idx n = MIN(NR, b->l1 - l), width = round_up(n, VL), image = s->groups * q->lanes.channels * q->lanes.plane;
        if (n < width) memset(d, 0, sizeof(REAL) * (size_t)(b->images * b->pixels * width));
        for (idx i = 0; i < b->images; i++, d += b->pixels * width)
            for (idx j = 0; j < n; j += PACKED) {
                const REAL *from = channel_at(q, &q->lanes, b, l + j) + i * image;
                idx channels = MIN(PACKED, n - j), rows = q->strided ? b->pixels / s->OW : 0;
                for (idx r = 0; r < rows; r++)
                    skip_columns(channels, s->OW, from + r * q->lanes.row, q->lanes.plane, s->SW, line + r * s->OW, b->pixels);
                pack(channels, b->pixels, rows ? line : from, rows ? b->pixels : q->lanes.plane, 1, d + j, width);
            }
    }
}

/* ---- sums ---- */

/* A panel of rows meets all strips. Meanwhile memory is asked for the next panel; the last ones ask for the next lanes, too. */
static void add_planes(const struct pixel_sum *q, const struct pixel_run *b, const struct pixel_run *after, idx r0, idx r1,
                       const REAL *strips, REAL *sums, int accumulate) {
    const struct planes *rows = &q->rows, *lanes = &q->lanes;
    idx pixels = b->images * b->pixels, height = panel_height(rows->channels), lane = after->l0;
    idx spare = MAX(1, ceil_div(b->l1 - b->l0, NR) - ceil_div(height, q->planes_ahead));
    idx late = r1 - ceil_div(ceil_div(after->l1 - after->l0, q->planes_ahead), spare) * height;
    for (idx r = r0; r < r1; r += height) {
        int last = r + height >= r1;
        const REAL *strip = strips, *panel = channel_at(q, rows, b, r);
        const REAL *next = channel_at(q, rows, last ? after : b, last ? r0 : r + height);
        for (idx l = b->l0, row = 0; l < b->l1; l += NR) {
            struct soon soon = {next, 0, q->planes_ahead, rows->pixel};   /* nothing new */
            if (row < height) {
                soon.from += row * rows->plane, soon.plane = rows->plane;
                row += q->planes_ahead;
            } else if (r >= late && lane < after->l1) {
                soon = (struct soon){channel_at(q, lanes, after, lane), lanes->plane, q->planes_ahead, lanes->pixel};
                lane += q->planes_ahead;
            }
            int vectors = b->l1 - l > VL ? 2 : 1;
            plane_kernels[MIN(height, r1 - r)](vectors, pixels, panel, rows->plane, rows->pixel, strip, sums + r * q->width + l,
                                               q->width, NULL, accumulate, &soon);
            strip += pixels * vectors * VL;
        }
    }
}

static void sum_planes(void *arg, idx begin, idx end, int worker) {
    const struct pixel_sum *q = arg;
    REAL *line = q->scratch + worker * q->worker_reals, *strips = line + q->line_reals;
    idx R = q->rows.channels, height = panel_height(R), panels = ceil_div(R, height);
    for (idx item = begin; item < end; item++) {
        idx split = item % q->splits, part = item / q->splits % q->parts, group = item / q->splits / q->parts;
        idx r0 = panels * split / q->splits * height, r1 = MIN(R, panels * (split + 1) / q->splits * height);
        idx first = q->blocks * part / q->parts * q->somes, last = q->blocks * (part + 1) / q->parts * q->somes;
        REAL *sums = q->sums + (group * q->parts + part) * R * q->width;
        for (idx i = first; i < last; i++) {
            struct pixel_run b = pixel_run_at(q, group, i), after = pixel_run_at(q, group, MIN(i + 1, last - 1));
            transpose_lanes(q, &b, line, strips);
            add_planes(q, &b, &after, r0, r1, strips, sums, i >= first + q->somes);
        }
    }
}

/* The parts together, VL rows at a time; where x is in the rows, they become columns. */
static void finish_planes(void *arg, idx begin, idx end, int worker) {
    (void)worker;
    const struct pixel_sum *q = arg;
    idx R = q->rows.channels, L = q->lanes.channels, blocks = ceil_div(R, VL);
    for (idx i = begin; i < end; i++) {
        idx group = i / blocks, r0 = i % blocks * VL, n = MIN(VL, R - r0);
        REAL *sums = q->sums + (group * q->parts * R + r0) * q->width, *dw = q->dw + group * R * L;
        for (idx j = 0; j < n * q->width && q->parts > 1; j += VL) {
            vr sum = load(sums + j);
            for (idx part = 1; part < q->parts; part++) sum += load(sums + part * R * q->width + j);
            store(sums + j, sum);
        }
        if (q->x_in_rows) pack(n, L, sums, q->width, 1, dw + r0, R);
        else for (idx r = 0; r < n; r++) copy_reals(dw + (r0 + r) * L, sums + r * q->width, L);
    }
}

/* ---- the choice of blocks ---- */

/* Parts of at least 1024 pixels and sums of at most 4 MB do not cost much, whatever the number of threads. Where they do not
   come out even, threads share the rows of a part, at the price of transposing its lanes more than once. */
static void choose_runs(struct pixel_sum *q) {
    const struct conv_shape *s = q->s;
    idx R = q->rows.channels, pixels = s->OH * s->OW, threads = cnn_get_num_threads();
    q->run = pixels <= KC ? pixels : round_up(block_of(pixels, q->strided ? KC / 2 : KC), q->strided ? s->OW : VL);
    q->runs = ceil_div(pixels, q->run);
    q->images = q->runs > 1 ? 1 : block_of(s->N, KC / pixels);
    q->blocks = q->runs * ceil_div(s->N, q->images);
    idx at_once = MAX(1, STRIP_BYTES / (idx)sizeof(REAL) / (q->images * q->run) / NR) * NR;
    q->some = round_up(block_of(q->lanes.channels, at_once), NR), q->somes = ceil_div(q->lanes.channels, q->some);
    q->width = round_up(q->lanes.channels, VL);
    q->planes_ahead = MAX(1, LINE / s->SW);
    idx most = (4 << 20) / (idx)sizeof(REAL) / (R * q->width * s->groups);
    q->parts = MAX(1, MIN(MIN(q->blocks, s->N * pixels / 1024), MIN(most, 16)));
    idx items = s->groups * q->parts, panels = ceil_div(R, panel_height(R));
    q->splits = threads > 1 && items % threads ? MIN(ceil_div(4 * threads, items), MAX(1, panels / 8)) : 1;
    q->line_reals = q->strided ? round_up(PACKED * q->run, 16) : 0;
    q->worker_reals = q->line_reals + q->images * q->run * q->some;
}

static void fill_pixels(const struct pixel_sum *q, const struct planes *p, idx *pixel) {
    idx OW = q->s->OW;
    for (idx image = 0; image < q->images; image++)
        for (idx i = 0; i < q->run; i++)
            *pixel++ = image * q->s->groups * p->channels * p->plane + i / OW * p->row + i % OW * p->step;
}

/* No padding; and with a stride x has to fill the lanes. */
static int is_sum_over_pixels(const struct conv_shape *s) {
    int inside = s->top == 0 && s->left == 0 && (s->OH - 1) * s->SH < s->H && (s->OW - 1) * s->SW < s->W;
    return s->KH * s->KW == 1 && inside && (s->C / s->groups >= VL || (s->OH == s->H && s->OW == s->W));
}

static int weight_of_pixels(const struct conv_shape *s, const REAL *dy, const REAL *x, REAL *dw) {
    idx C = s->C / s->groups, F = s->F / s->groups, W = s->W, OW = s->OW;
    struct pixel_sum q = {.s = s, .dw = dw, .strided = s->OH != s->H || OW != W};
    struct planes of_x = {.at = x, .channels = C, .plane = s->H * W, .row = s->SH * W, .step = s->SW};
    struct planes of_dy = {.at = dy, .channels = F, .plane = s->OH * OW, .row = OW, .step = 1};
    q.x_in_rows = !q.strided && (C >= F || C < VL);
    q.rows = q.x_in_rows ? of_x : of_dy, q.lanes = q.x_in_rows ? of_dy : of_x;
    choose_runs(&q);

    idx table = round_up(q.images * q.run, 8);
    idx *pixels = scratch_take(sizeof(idx) * (size_t)(2 * table)
                               + sizeof(REAL) * (size_t)(s->groups * q.parts * q.rows.channels * q.width));
    if (!pixels) return CNN_NO_MEMORY;
    q.rows.pixel = pixels, q.lanes.pixel = pixels + table, q.sums = (REAL *)(pixels + 2 * table);
    fill_pixels(&q, &q.rows, pixels);
    fill_pixels(&q, &q.lanes, pixels + table);
    idx items = s->groups * q.parts * q.splits;
    idx grain = grain_of(0.1 * (double)(s->N * s->OH * OW) * (double)(s->F * C) / (double)items);
    q.scratch = scratch_take(sizeof(REAL) * (size_t)q.worker_reals * (size_t)parallel_workers(items, grain));
    if (q.scratch) {
        parallel_for(items, grain, sum_planes, &q);
        parallel_for(s->groups * ceil_div(q.rows.channels, VL), grain_of((double)(q.parts * q.width * VL)), finish_planes, &q);
    }
    int status = q.scratch ? CNN_OK : CNN_NO_MEMORY;
    scratch_give(q.scratch);
    scratch_give(pixels);
    return status;
}
