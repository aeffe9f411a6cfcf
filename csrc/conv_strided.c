/* 1x1 convolutions with a stride, forward and for the input's gradient: products of weights with pixels, where the stride skips
   most pixels of the larger image. Forward its pixels are gathered into strips; backward they are spread, with zeros between
   them. Either way memory has much to do: so the products of one block ask for the lines that come next. Part of conv.c. */
#include "conv_planes.c"

struct strided_product {
    const struct conv_shape *s;
    int backward;
    idx M, K;                             /* channels per group that come out, and that go in */
    const REAL *in, *w, *bias;
    REAL *out;
    idx in_plane, out_plane;
    idx rows, blocks;                     /* rows of the smaller image in a block; blocks of an image */
    idx kc, splits;                       /* a block of k; of the rows of weights, for several threads */
    REAL *weights, *scratch;              /* (group, block of k, M, kc) */
    idx *k;                               /* where the weights of a row are: 0, 1, 2 ... */
    struct lines { idx *at, count, calls; } in_lines, out_lines, weight_lines;
    idx line_reals, strip_reals, worker_reals;
};

struct rows_of { idx image, group, row, rows; };

static struct rows_of rows_at(const struct strided_product *q, idx i) {
    idx row = i % q->blocks * q->rows;
    i /= q->blocks;
    return (struct rows_of){i / q->s->groups, i % q->s->groups, row, MIN(q->rows, q->s->OH - row)};
}

static const REAL *in_at(const struct strided_product *q, const struct rows_of *b, idx k) {
    idx step = q->backward ? q->s->OW : q->s->SH * q->s->W;
    return q->in + ((b->image * q->s->groups + b->group) * q->K + k) * q->in_plane + b->row * step;
}
static REAL *out_at(const struct strided_product *q, const struct rows_of *b, idx m) {
    idx step = q->backward ? q->s->SH * q->s->W : q->s->OW;
    return q->out + ((b->image * q->s->groups + b->group) * q->M + m) * q->out_plane + b->row * step;
}

/* For each block of k strips of NR pixels, the last one of VL if that is enough. */
static void gather_strips(const struct strided_product *q, const struct rows_of *b, REAL *line, REAL *strips) {
    const struct conv_shape *s = q->s;
    idx pixels = b->rows * s->OW, lanes = round_up(pixels, VL);
    for (idx k0 = 0; k0 < q->K; k0 += q->kc)
        for (idx k = k0, end = MIN(q->K, k0 + q->kc); k < end; k += PACKED) {
            idx n = MIN(PACKED, end - k);
            const REAL *from = in_at(q, b, k);
            for (idx r = 0; r < b->rows && !q->backward; r++)
                skip_columns(n, s->OW, from + r * s->SH * s->W, q->in_plane, s->SW, line + r * s->OW, lanes);
            idx pitch = q->backward ? q->in_plane : lanes;
            if (!q->backward) from = line;
            for (idx p = 0; p < pixels; p += NR) {
                idx width = MIN(NR, lanes - p);
                REAL *d = strips + k0 * lanes + p * (end - k0) + (k - k0) * width;
                for (idx i = 0; i < n; i++, d += width)
                    for (idx j = 0; j < width; j += VL) store(d + j, load_part(from + i * pitch + p + j, pixels - p - j));
            }
        }
}

/* ---- products ---- */

/* A row of pixels, `step` apart in n. */
static void spread_row(REAL *d, idx n, idx step, const REAL *s) {
    if (step == 2) {
        interleave_two(d, n, s, NULL);
        return;
    }
    memset(d, 0, sizeof(REAL) * (size_t)n);
    for (idx j = 0; j * step < n; j++) d[j * step] = s[j];
}

/* A plane of the larger image: the rows of a block. */
static void spread_rows(const struct strided_product *q, const struct rows_of *b, REAL *to, const REAL *sums) {
    const struct conv_shape *s = q->s;
    for (idx r = 0; r < b->rows; r++, sums += s->OW) {
        idx rows = MIN(s->SH, s->H - (b->row + r) * s->SH);
        spread_row(to, s->W, s->SW, sums);
        memset(to + s->W, 0, sizeof(REAL) * (size_t)((rows - 1) * s->W));
        to += rows * s->W;
    }
}

/* The n-th request for the lines of a block in some planes: LINE planes at a time, as many lines of each as a product has
   time for. */
static struct soon request(const struct strided_product *q, const struct lines *lines, const REAL *planes, idx plane, idx n) {
    idx first = n % lines->calls * MAX(1, q->kc / LINE);
    return (struct soon){planes + n / lines->calls * LINE * plane, plane, LINE, lines->at + first * LINE};
}

/* Rows [m0, m1) of the weights, a panel at a time, meet all strips. Each panel asks for the lines that it will write and for
   the next panel, the last ones for the next block. */
static void multiply_rows(const struct strided_product *q, const struct rows_of *b, const struct rows_of *after, idx m0, idx m1,
                          const REAL *strips, REAL *sums) {
    idx pixels = b->rows * q->s->OW, lanes = round_up(pixels, VL), height = panel_height(q->M), asked = 0;
    idx writes = q->backward ? ceil_div(height, LINE) * q->out_lines.calls : 0, weights = writes + q->weight_lines.calls;
    idx wanted = ceil_div(q->K, LINE) * q->in_lines.calls;
    idx spare = MAX(1, ceil_div(pixels, NR) * ceil_div(q->K, q->kc) - weights), late = m1 - ceil_div(wanted, spare) * height;
    REAL t[MR * NR] __attribute__((aligned(64)));
    for (idx m = m0; m < m1; m += height) {
        idx rows = MIN(height, m1 - m), calls = 0;
        REAL *out = out_at(q, b, m);
        for (idx p = 0; p < pixels; p += NR) {
            idx width = MIN(NR, lanes - p), n = pixels - p, direct = !q->backward && n >= width;
            REAL *c = q->backward ? sums + p : direct ? out + p : t;
            idx ldc = q->backward ? lanes : direct ? q->out_plane : NR;
            for (idx k0 = 0; k0 < q->K; k0 += q->kc, calls++) {
                idx kc = MIN(q->kc, q->K - k0);
                const REAL *panel = q->weights + (b->group * q->K + k0) * q->M + m * kc;
                struct soon soon = {strips, 0, LINE, q->k};   /* nothing new */
                if (calls < writes) soon = request(q, &q->out_lines, out, q->out_plane, calls);
                else if (calls < weights && m + height < m1)
                    soon = request(q, &q->weight_lines, panel + height * kc, LINE, calls - writes);
                else if (m >= late && asked < wanted) soon = request(q, &q->in_lines, in_at(q, after, 0), q->in_plane, asked++);
                plane_kernels[rows]((int)(width / VL), kc, panel, kc, q->k, strips + k0 * lanes + p * kc, c, ldc,
                                    q->bias && !k0 ? q->bias + b->group * q->M + m : NULL, k0 > 0, &soon);
            }
            for (idx i = 0; c == t && i < rows; i++)
                for (idx j = 0; j < width; j += VL) store_part(out + i * q->out_plane + p + j, load(t + i * NR + j), n - j);
        }
        for (idx i = 0; q->backward && i < rows; i++) spread_rows(q, b, out + i * q->out_plane, sums + i * lanes);
    }
}

static void multiply_items(void *arg, idx begin, idx end, int worker) {
    const struct strided_product *q = arg;
    REAL *line = q->scratch + worker * q->worker_reals, *strips = line + q->line_reals, *sums = strips + q->strip_reals;
    idx height = panel_height(q->M), panels = ceil_div(q->M, height);
    for (idx i = begin; i < end; i++) {
        struct rows_of b = rows_at(q, i / q->splits), after = rows_at(q, MIN(i + 1, end - 1) / q->splits);
        idx split = i % q->splits, m0 = panels * split / q->splits * height;
        if (i == begin || !split) gather_strips(q, &b, line, strips);
        multiply_rows(q, &b, &after, m0, MIN(q->M, panels * (split + 1) / q->splits * height), strips, sums);
    }
}

/* ---- the whole product ---- */

static void copy_weights(void *arg, idx begin, idx end, int worker) {
    (void)worker;
    const struct strided_product *q = arg;
    idx blocks = ceil_div(q->K, q->kc);
    for (idx i = begin; i < end; i++) {
        idx k0 = i % blocks * q->kc, kc = MIN(q->kc, q->K - k0);
        const REAL *w = q->w + i / blocks * q->M * q->K;
        REAL *d = q->weights + (i / blocks * q->K + k0) * q->M;
        if (q->backward) pack(kc, q->M, w + k0 * q->M, q->M, 1, d, kc);
        else for (idx m = 0; m < q->M; m++) copy_reals(d + m * kc, w + m * q->K + k0, kc);
    }
}

/* `pitch` apart, `rows` rows of n. */
static void list_lines(const struct strided_product *q, struct lines *lines, idx rows, idx n, idx pitch) {
    idx each = ceil_div(n, LINE), at_once = MAX(1, q->kc / LINE);
    lines->count = rows * each, lines->calls = ceil_div(lines->count, at_once);
    for (idx i = 0; i < lines->count + at_once; i++) {
        idx line = MIN(i, lines->count - 1);
        lines->at[i * LINE] = line / each * pitch + line % each * LINE;
    }
}

static int multiply_strided(struct strided_product q) {
    const struct conv_shape *s = q.s;
    idx threads = cnn_get_num_threads(), small = s->OH * s->OW, large = s->H * s->W;
    q.in_plane = q.backward ? small : large, q.out_plane = q.backward ? large : small;
    q.rows = least_waste(s->OH, s->OW, MAX(2 * NR, MIN(448, (STRIP_BYTES >> 2) / q.K)) / s->OW);
    q.blocks = ceil_div(s->OH, q.rows), q.kc = block_of(q.K, KC);
    idx items = s->N * s->groups * q.blocks, panels = ceil_div(q.M, panel_height(q.M)), lanes = round_up(q.rows * s->OW, VL);
    q.splits = threads > 1 && items < 4 * threads ? MIN(ceil_div(4 * threads, items), MAX(1, panels / 4)) : 1;
    q.line_reals = PACKED * lanes, q.strip_reals = q.K * lanes, q.worker_reals = q.line_reals + q.strip_reals + MR * lanes + NR;

    idx most = MAX(MR * q.kc / LINE / LINE, q.rows * ceil_div(s->SH * s->W, LINE)) + q.kc / LINE + 2, table = most * LINE;
    size_t tables = sizeof(idx) * (size_t)(round_up(q.kc, 8) + 3 * table);
    char *shared = scratch_take(tables + sizeof(REAL) * (size_t)(s->groups * q.M * q.K));
    if (!shared) return CNN_NO_MEMORY;
    q.k = (idx *)shared, q.weights = (REAL *)(shared + tables);
    q.in_lines.at = q.k + round_up(q.kc, 8), q.out_lines.at = q.in_lines.at + table, q.weight_lines.at = q.out_lines.at + table;
    for (idx k = 0; k < q.kc; k++) q.k[k] = k;
    struct lines *larger = q.backward ? &q.out_lines : &q.in_lines, *smaller = q.backward ? &q.in_lines : &q.out_lines;
    list_lines(&q, smaller, 1, q.rows * s->OW, 0);
    if (q.backward) list_lines(&q, larger, 1, q.rows * s->SH * s->W, 0);
    else list_lines(&q, larger, q.rows, (s->OW - 1) * s->SW + 1, s->SH * s->W);

    list_lines(&q, &q.weight_lines, ceil_div(panel_height(q.M) * q.kc, LINE * LINE), LINE, LINE * LINE);

    idx grain = grain_of(0.1 * (double)(q.rows * s->OW) * (double)(q.M * q.K) / (double)q.splits);
    q.scratch = scratch_take(sizeof(REAL) * (size_t)q.worker_reals * (size_t)parallel_workers(items * q.splits, grain));
    if (q.scratch) {
        parallel_for(s->groups * ceil_div(q.K, q.kc), grain_of((double)(q.M * q.kc)), copy_weights, &q);
        parallel_for(items * q.splits, grain, multiply_items, &q);
    }
    int status = q.scratch ? CNN_OK : CNN_NO_MEMORY;
    scratch_give(q.scratch);
    scratch_give(shared);
    return status;
}

/* No padding, strips that are nearly full, and channels enough to pay for gathering. */
static int is_strided_product(const struct conv_shape *s) {
    int fits = s->top == 0 && s->left == 0 && ceil_div(s->H, s->SH) == s->OH && ceil_div(s->W, s->SW) == s->OW;
    return s->KH * s->KW == 1 && s->SH * s->SW > 1 && fits && s->OH * s->OW >= 8 * NR && s->OW <= 256
        && MIN(s->C, s->F) / s->groups >= 2 * VL;
}
