/* Normalisations. Sums of many values are taken in chunks: within a chunk in vectors, from chunk to chunk in double. Chunks
   depend on the shape only. Threads split channels or rows. */

enum { CHUNK = 256 * LANES_IN_VECTOR };   /* values per partial sum: 64 for each lane of four accumulators */

struct norm_call {
    idx N, C, S;
    const REAL *x, *dy, *gamma, *beta, *mean, *var;
    REAL *out, *mean_out, *var_out, *dgamma, *dbeta;   /* out: y or dx */
    REAL *partial;                                     /* layer norm: sums over parts of the rows */
    double eps;
};

static REAL or_one(const REAL *a, idx i) { return a ? a[i] : 1; }
static REAL or_zero(const REAL *a, idx i) { return a ? a[i] : 0; }

/* N runs of S values are cut into chunks of `runs` runs of `length` values each, about equal. */
struct chunk_size { idx runs, length; };
static struct chunk_size chunk_size_of(idx N, idx S) {
    if (S <= CHUNK) {
        const idx chunks = (N + CHUNK / S - 1) / (CHUNK / S);
        return (struct chunk_size){(N + chunks - 1) / chunks, S};
    }
    const idx chunks = (S + CHUNK - 1) / CHUNK, length = (S + chunks - 1) / chunks;
    return (struct chunk_size){1, (length + VL - 1) / VL * VL};
}

/* Runs of a channel lie far apart, and the hardware's own prefetching starts anew with each: so far it is from a place in run n
   to the same one in the next run, of this channel or of the one after it. In long runs, a page ahead is enough. */
static idx next_run(idx n, idx N, idx S, idx step) {
    if (S * (idx)sizeof(REAL) > 16 * READ_AHEAD) return READ_AHEAD / (idx)sizeof(REAL);
    return n + 1 < N ? step : S - n * step;
}
/* The first-level cache keeps what is read; a long run that is asked for while this one is read would drive it out. */
static int is_long(idx run, idx next) { return run * (idx)sizeof(REAL) > 8192 && next * (idx)sizeof(REAL) > READ_AHEAD; }
INLINE void ask_to_read(const REAL *p, const idx length, const int into_l2) {
    for (idx i = 0; i < length; i += LINE)
        if (into_l2) __builtin_prefetch(p + i, 0, 2);
        else __builtin_prefetch(p + i);
}
INLINE void ask_to_write(const REAL *p) { __builtin_prefetch(p, 1, 2); }

/* ---- mean and variance ---- */

struct moments { double count, mean, m2; };   /* m2 = sum of (x - mean)^2 */

/* Chan's rule. */
static struct moments join(struct moments a, struct moments b) {
    double count = a.count + b.count, delta = b.mean - a.mean;
    const double share = b.count / count;
    return (struct moments){count, a.mean + delta * share, a.m2 + b.m2 + delta * delta * a.count * share};
}

struct power_sums { vr d[4], squares[4]; };

/* Four sums of each, as one alone would wait for its last addition. */
INLINE void add_powers(struct power_sums *s, const idx first, const idx vectors, const REAL *x, REAL origin) {
#pragma GCC unroll 4
    for (idx j = first; j < first + vectors; j++, x += VL) {
        const vr d = load(x) - origin;
        s->d[j] += d, s->squares[j] += d * d;
    }
}
static REAL sum_of_four(const vr *v) { return horizontal_sum((v[0] + v[1]) + (v[2] + v[3])); }

static struct moments moments_about(REAL origin, const REAL *x, idx runs, idx length, idx step, idx ahead, idx ahead_of_last) {
    const double count = (double)(runs * length);
    struct power_sums s = {0};
    for (idx r = 0; r < runs; r++, x += step) {
        const idx next = r + 1 < runs ? ahead : ahead_of_last;
        idx i = 0;
        if (is_long(length, next))
            for (; i + 4 * VL <= length; i += 4 * VL) ask_to_read(x + i + next, 4 * VL, 1), add_powers(&s, 0, 4, x + i, origin);
        else
            for (; i + 4 * VL <= length; i += 4 * VL) ask_to_read(x + i + next, 4 * VL, 0), add_powers(&s, 0, 4, x + i, origin);
        if (i + 2 * VL <= length) add_powers(&s, 0, 2, x + i, origin), i += 2 * VL;
        if (i + VL <= length) add_powers(&s, 2, 1, x + i, origin), i += VL;
        if (i < length) {
            const vr d = keep_lanes(load_n(x + i, length - i) - origin, length - i);
            s.d[3] += d, s.squares[3] += d * d;
        }
    }
    const double sum = sum_of_four(s.d), squares = sum_of_four(s.squares);
    return (struct moments){count, origin + sum / count, squares - sum * sum / count};
}

/* Of N runs of S values, `step` apart, in one pass. Squares are taken of differences from the mean so far, at first from that
   of a quarter of the first chunk. Where it is far from a chunk's own mean, so that the chunk's m2 cancels, their distance is
   a larger part of the result. A constant has a variance of exactly 0. */
static struct moments moments_of(const REAL *x, idx N, idx S, idx step) {
    const struct chunk_size chunk = chunk_size_of(N, S);
    const idx first_runs = (chunk.runs + 3) / 4, quarter = ((MIN(S, chunk.length) + 3) / 4 + VL - 1) / VL * VL;
    const idx first_length = chunk.runs < 4 ? MIN(S, quarter) : S;
    const idx next = next_run(0, N, S, step);
    struct moments total = {.mean = moments_about(x[0], x, first_runs, first_length, step, next, next).mean};
    for (idx n = 0; n < N; n += chunk.runs)
        for (idx i = 0; i < S; i += chunk.length) {
            const idx runs = MIN(chunk.runs, N - n), length = MIN(chunk.length, S - i);
            const struct moments part = moments_about((REAL)total.mean, x + n * step + i, runs, length, step, next,
                                                      next_run(n + runs - 1, N, S, step));
            total = total.count ? join(total, part) : part;
        }
    if (total.m2 < 0) total.m2 = 0;
    return total;
}

/* ---- batch norm: x (N, C, S), channel by channel or, where S is small, many columns (c, s) side by side ---- */

enum { BLOCK_COLUMNS = 16 * LANES_IN_VECTOR };   /* in a block: whole channels */
static int by_columns(idx S) { return 8 * S <= BLOCK_COLUMNS; }

struct scaling { REAL mean, scale, shift; };   /* y = (x - mean) scale + shift */

static struct scaling normalise(const struct norm_call *p, idx c, struct moments m) {
    const double var = m.m2 / m.count, scale = or_one(p->gamma, c) / sqrt(var + p->eps);
    const REAL mean = (REAL)m.mean;
    p->mean_out[c] = mean, p->var_out[c] = (REAL)var;
    /* What rounding the mean does to y, the shift takes back. */
    return (struct scaling){mean, (REAL)scale, (REAL)(or_zero(p->beta, c) - (m.mean - mean) * scale)};
}
static struct scaling normalise_as_given(const struct norm_call *p, idx c) {
    return (struct scaling){p->mean[c], (REAL)(or_one(p->gamma, c) / sqrt(p->var[c] + p->eps)), or_zero(p->beta, c)};
}

static void scale_run(const REAL *x, idx length, struct scaling k, REAL *y, idx next) {
    idx i = 0;
    for (; i + LINE <= length; i += LINE) {
        ask_to_write(y + i + next);
        for (idx j = i; j < i + LINE; j += VL) store(y + j, (load(x + j) - k.mean) * k.scale + k.shift);
    }
    for (; i + VL <= length; i += VL) store(y + i, (load(x + i) - k.mean) * k.scale + k.shift);
    if (i < length) store_n(y + i, (load_n(x + i, length - i) - k.mean) * k.scale + k.shift, length - i);
}

static void batch_norm_channels(void *arg, idx begin, idx end, int worker) {
    (void)worker;
    const struct norm_call *p = arg;
    const idx N = p->N, S = p->S, step = p->C * S;
    for (idx c = begin; c < end; c++) {
        const REAL *x = p->x + c * S;
        REAL *y = p->out + c * S;
        const struct scaling k = normalise(p, c, moments_of(x, N, S, step));
        for (idx n = 0; n < N; n++) scale_run(x + n * step, S, k, y + n * step, next_run(n, N, S, step));
    }
}

static void batch_norm_inference_planes(void *arg, idx begin, idx end, int worker) {
    (void)worker;
    const struct norm_call *p = arg;
    for (idx i = begin; i < end; i++)
        scale_run(p->x + i * p->S, p->S, normalise_as_given(p, i % p->C), p->out + i * p->S,
                  next_run(0, 1, p->S, p->S));
}

/* Columns [at, at + width) of the (N, C S) matrix belong to the channels from c on. */
struct columns { idx c, channels, at, width; };

static struct columns block_of_columns(const struct norm_call *p, idx block) {
    const idx channels = BLOCK_COLUMNS / p->S, c = block * channels, n = MIN(channels, p->C - c);
    return (struct columns){c, n, c * p->S, n * p->S};
}

/* Every REAL of the next functions' arrays belongs to one column; they work on `vectors` vectors at a time, 4 or 1. */
#define FOR_COLUMNS(each, width)                                                  \
    for (idx j = 0; j < (width);)                                                \
        if ((width) - j >= 4 * VL) each(j, 4, 4 * VL), j += 4 * VL;              \
        else each(j, 1, (width) - j), j += VL
enum { ROWS = 256 };   /* sums over so many rows are added to sums of those */

/* mean relative to the first row, and m2. */
INLINE void moments_of_columns(const REAL *x, idx N, idx step, const idx vectors, const idx width, REAL *mean, REAL *m2) {
    vr origin[4], offset[4] = {{0}};
    for (idx v = 0; v < vectors; v++) origin[v] = load_part(x + v * VL, width - v * VL);
    for (int pass = 0; pass < 2; pass++) {
        vr sum[4] = {{0}}, squares[4] = {{0}};
        for (idx n0 = 0; n0 < N; n0 += ROWS) {
            vr s[4] = {{0}}, q[4] = {{0}};
            for (idx n = n0; n < MIN(N, n0 + ROWS); n++)
                for (idx v = 0; v < vectors; v++) {
                    const vr d = load_part(x + n * step + v * VL, width - v * VL) - origin[v] - offset[v];
                    s[v] += d, q[v] += d * d;
                }
            for (idx v = 0; v < vectors; v++) sum[v] += s[v], squares[v] += q[v];
        }
        for (idx v = 0; v < vectors; v++) {
            const vr rest = sum[v] / (REAL)N;
            offset[v] += rest, squares[v] -= sum[v] * rest;
            if (pass) store_part(mean + v * VL, offset[v], width - v * VL), store_part(m2 + v * VL, squares[v], width - v * VL);
        }
    }
}

static struct moments moments_of_channel(const REAL *x, const REAL *mean, const REAL *m2, idx N, idx S) {
    struct moments m = {.count = (double)N * (double)S};
    for (idx i = 0; i < S; i++) m.mean += ((double)x[i] + mean[i] - x[0]) / (double)S;
    m.mean += x[0];
    for (idx i = 0; i < S; i++) {
        const double distance = (double)x[i] + mean[i] - m.mean;
        m.m2 += m2[i] + (double)N * distance * distance;
    }
    if (m.m2 < 0) m.m2 = 0;
    return m;
}

static void scale_columns(const struct norm_call *p, struct columns b, const struct scaling *scalings) {
    REAL mean[BLOCK_COLUMNS], scale[BLOCK_COLUMNS], shift[BLOCK_COLUMNS];
    for (idx i = 0, c = 0; c < b.channels; c++)
        for (idx s = 0; s < p->S; s++, i++)
            mean[i] = scalings[c].mean, scale[i] = scalings[c].scale, shift[i] = scalings[c].shift;
    for (idx n = 0; n < p->N; n++) {
        const REAL *x = p->x + n * p->C * p->S + b.at;
        REAL *y = p->out + n * p->C * p->S + b.at;
        for (idx i = 0; i < b.width; i += VL) {
            const idx left = b.width - i;
            const vr d = load_part(x + i, left) - load_part(mean + i, left);
            store_part(y + i, d * load_part(scale + i, left) + load_part(shift + i, left), left);
        }
    }
}

static void batch_norm_columns(void *arg, idx begin, idx end, int worker) {
    (void)worker;
    const struct norm_call *p = arg;
    for (idx block = begin; block < end; block++) {
        const struct columns b = block_of_columns(p, block);
        const REAL *x = p->x + b.at;
        REAL mean[BLOCK_COLUMNS], m2[BLOCK_COLUMNS];
        struct scaling scalings[BLOCK_COLUMNS];
#define MOMENTS(j, vectors, width) moments_of_columns(x + j, p->N, p->C * p->S, vectors, width, mean + j, m2 + j)
        FOR_COLUMNS(MOMENTS, b.width);
        for (idx c = 0, i = 0; c < b.channels; c++, i += p->S)
            scalings[c] = normalise(p, b.c + c, moments_of_channel(x + i, mean + i, m2 + i, p->N, p->S));
        scale_columns(p, b, scalings);
    }
}

static void batch_norm_inference_columns(void *arg, idx begin, idx end, int worker) {
    (void)worker;
    const struct norm_call *p = arg;
    for (idx block = begin; block < end; block++) {
        const struct columns b = block_of_columns(p, block);
        struct scaling scalings[BLOCK_COLUMNS];
        for (idx c = 0; c < b.channels; c++) scalings[c] = normalise_as_given(p, b.c + c);
        scale_columns(p, b, scalings);
    }
}

static void fill(REAL *a, REAL value, idx n) {
    if (a) for (idx i = 0; i < n; i++) a[i] = value;
}

static void for_channels(struct norm_call *p, range_body channels, range_body columns) {
    if (p->N < 1 || p->C < 1 || p->S < 1) {   /* the mean of nothing; sums of nothing */
        fill(p->mean_out, NAN, p->C), fill(p->var_out, NAN, p->C), fill(p->dgamma, 0, p->C), fill(p->dbeta, 0, p->C);
        return;
    }
    const double work = 3.0 * (double)p->N * (double)p->S;
    const idx in_block = BLOCK_COLUMNS / p->S;
    if (by_columns(p->S)) parallel_for((p->C + in_block - 1) / in_block, grain_of(work * (double)in_block / 4), columns, p);
    else parallel_for(p->C, grain_of(work), channels, p);
}

static int batch_norm(idx N, idx C, idx S, double eps, const void *x, const void *gamma, const void *beta, void *y, void *mean,
                      void *var) {
    struct norm_call p = {.N = N, .C = C, .S = S, .eps = eps, .x = x, .gamma = gamma, .beta = beta, .out = y, .mean_out = mean,
                          .var_out = var};
    for_channels(&p, batch_norm_channels, batch_norm_columns);
    return CNN_OK;
}

static int batch_norm_inference(idx N, idx C, idx S, double eps, const void *x, const void *gamma, const void *beta,
                                const void *mean, const void *var, void *y) {
    struct norm_call p = {.N = N, .C = C, .S = S, .eps = eps, .x = x, .gamma = gamma, .beta = beta, .mean = mean, .var = var,
                          .out = y};
    if (S > 0 && !by_columns(S)) parallel_for(N * C, grain_of((double)S), batch_norm_inference_planes, &p);
    else for_channels(&p, NULL, batch_norm_inference_columns);
    return CNN_OK;
}

/* Sums over a channel of dy, dy d and d, where d = x - mean. */
struct channel_sums { double dy, dy_d, d; };

struct lane_sums { vr dy[4], dy_d[4], d[4]; };

INLINE void add_vectors(struct lane_sums *s, const idx first, const idx vectors, const REAL *dy, const REAL *x, REAL mean) {
#pragma GCC unroll 4
    for (idx j = first; j < first + vectors; j++, dy += VL, x += VL) {
        const vr g = load(dy), d = load(x) - mean;
        s->dy[j] += g, s->dy_d[j] += g * d, s->d[j] += d;
    }
}
INLINE void add_run(struct lane_sums *s, const REAL *dy, const REAL *x, idx length, REAL mean, idx next, const int into_l2) {
    idx i = 0;
    for (; i + 4 * VL <= length; i += 4 * VL) {
        ask_to_read(dy + i + next, 4 * VL, into_l2), ask_to_read(x + i + next, 4 * VL, into_l2);
        add_vectors(s, 0, 4, dy + i, x + i, mean);
    }
    if (i + 2 * VL <= length) add_vectors(s, 0, 2, dy + i, x + i, mean), i += 2 * VL;
    if (i + VL <= length) add_vectors(s, 2, 1, dy + i, x + i, mean), i += VL;
    if (i < length) {
        const idx n = length - i;
        const vr g = load_n(dy + i, n), d = keep_lanes(load_n(x + i, n) - mean, n);
        s->dy[3] += g, s->dy_d[3] += g * d, s->d[3] += d;
    }
}
static struct channel_sums sums_of_channel(const struct norm_call *p, idx c) {
    const REAL mean = p->mean[c];
    const idx S = p->S;
    const struct chunk_size chunk = chunk_size_of(p->N, S);
    struct channel_sums total = {0};
    for (idx n0 = 0; n0 < p->N; n0 += chunk.runs)
        for (idx i0 = 0; i0 < S; i0 += chunk.length) {
            struct lane_sums s = {0};
            for (idx n = n0; n < MIN(p->N, n0 + chunk.runs); n++) {
                const idx at = (n * p->C + c) * S + i0, length = MIN(chunk.length, S - i0), next = next_run(n, p->N, S, p->C * S);
                if (is_long(length, next)) add_run(&s, p->dy + at, p->x + at, length, mean, next, 1);
                else add_run(&s, p->dy + at, p->x + at, length, mean, next, 0);
            }
            total.dy += sum_of_four(s.dy), total.dy_d += sum_of_four(s.dy_d), total.d += sum_of_four(s.d);
        }
    return total;
}

struct mixture { REAL mean, on_dy, on_d, constant; };   /* dx = on_dy dy + on_d (x - mean) + constant */

static struct mixture differentiate(const struct norm_call *p, idx c, struct channel_sums s) {
    const double m = (double)p->N * (double)p->S, r = 1 / sqrt(p->var[c] + p->eps);
    const double shift = s.d / m;   /* what rounding the mean left in d */
    const double dgamma = (s.dy_d - shift * s.dy) * r, scale = or_one(p->gamma, c) * r, on_d = -scale * r * dgamma / m;
    p->dgamma[c] = (REAL)dgamma, p->dbeta[c] = (REAL)s.dy;
    return (struct mixture){p->mean[c], (REAL)scale, (REAL)on_d, (REAL)(-scale * s.dy / m - on_d * shift)};
}
static struct mixture differentiate_as_given(const struct norm_call *p, idx c, struct channel_sums s) {
    const double r = 1 / sqrt(p->var[c] + p->eps);
    p->dgamma[c] = (REAL)(s.dy_d * r), p->dbeta[c] = (REAL)s.dy;
    return (struct mixture){.on_dy = (REAL)(or_one(p->gamma, c) * r)};
}

INLINE vr mix(struct mixture k, vr x, vr dy, const int given) {
    return given ? dy * k.on_dy : dy * k.on_dy + ((x - k.mean) * k.on_d + k.constant);
}
INLINE void mix_run(const REAL *x, const REAL *dy, idx length, struct mixture k, const int given, REAL *dx, idx next) {
    idx i = 0;
    for (; i + LINE <= length; i += LINE) {
        ask_to_write(dx + i + next);
        for (idx j = i; j < i + LINE; j += VL) store(dx + j, mix(k, load(x + j), load(dy + j), given));
    }
    for (; i + VL <= length; i += VL) store(dx + i, mix(k, load(x + i), load(dy + i), given));
    const idx n = length - i;
    if (n) store_n(dx + i, mix(k, load_n(x + i, n), load_n(dy + i, n), given), n);
}

INLINE void backward_of_channels(const struct norm_call *p, idx begin, idx end, const int given) {
    for (idx c = begin; c < end; c++) {
        const struct channel_sums s = sums_of_channel(p, c);
        const struct mixture k = given ? differentiate_as_given(p, c, s) : differentiate(p, c, s);
        for (idx n = 0; n < p->N; n++) {
            const idx at = (n * p->C + c) * p->S;
            mix_run(p->x + at, p->dy + at, p->S, k, given, p->out + at, next_run(n, p->N, p->S, p->C * p->S));
        }
    }
}
static void batch_norm_backward_channels(void *arg, idx begin, idx end, int worker) {
    (void)worker;
    backward_of_channels(arg, begin, end, 0);
}
static void batch_norm_inference_backward_channels(void *arg, idx begin, idx end, int worker) {
    (void)worker;
    backward_of_channels(arg, begin, end, 1);
}

struct column_sums { REAL dy[BLOCK_COLUMNS], dy_d[BLOCK_COLUMNS], d[BLOCK_COLUMNS]; };

INLINE void sums_of_columns(const struct norm_call *p, idx at, const REAL *mean, const idx vectors, const idx width, idx to,
                            struct column_sums *sums) {
    vr total_a[4] = {{0}}, total_u[4] = {{0}}, total_e[4] = {{0}}, m[4];
    for (idx v = 0; v < vectors; v++) m[v] = load_part(mean + v * VL, width - v * VL);
    for (idx n0 = 0; n0 < p->N; n0 += ROWS) {
        vr a[4] = {{0}}, u[4] = {{0}}, e[4] = {{0}};
        for (idx n = n0; n < MIN(p->N, n0 + ROWS); n++)
            for (idx v = 0; v < vectors; v++) {
                const idx i = n * p->C * p->S + at + v * VL, left = width - v * VL;
                const vr g = load_part(p->dy + i, left), d = load_part(p->x + i, left) - m[v];
                a[v] += g, u[v] += g * d, e[v] += d;
            }
        for (idx v = 0; v < vectors; v++) total_a[v] += a[v], total_u[v] += u[v], total_e[v] += e[v];
    }
    for (idx v = 0; v < vectors; v++) {
        const idx i = to + v * VL, left = width - v * VL;
        store_part(sums->dy + i, total_a[v], left), store_part(sums->dy_d + i, total_u[v], left);
        store_part(sums->d + i, total_e[v], left);
    }
}

INLINE void backward_of_columns(const struct norm_call *p, idx begin, idx end, const int given) {
    for (idx block = begin; block < end; block++) {
        const struct columns b = block_of_columns(p, block);
        REAL mean[BLOCK_COLUMNS], on_dy[BLOCK_COLUMNS], on_d[BLOCK_COLUMNS], constant[BLOCK_COLUMNS];
        struct column_sums sums;
        for (idx i = 0; i < b.width; i++) mean[i] = p->mean[b.c + i / p->S];
#define SUMS(j, vectors, width) sums_of_columns(p, b.at + j, mean + j, vectors, width, j, &sums)
        FOR_COLUMNS(SUMS, b.width);
        for (idx c = 0, i = 0; c < b.channels; c++) {
            struct channel_sums s = {0};
            for (idx j = i; j < i + p->S; j++) s.dy += sums.dy[j], s.dy_d += sums.dy_d[j], s.d += sums.d[j];
            const struct mixture k = given ? differentiate_as_given(p, b.c + c, s) : differentiate(p, b.c + c, s);
            for (idx j = 0; j < p->S; j++, i++) on_dy[i] = k.on_dy, on_d[i] = k.on_d, constant[i] = k.constant;
        }
        for (idx n = 0; n < p->N; n++)
            for (idx i = 0; i < b.width; i += VL) {
                const idx at = n * p->C * p->S + b.at + i, left = b.width - i;
                const vr g = load_part(p->dy + at, left) * load_part(on_dy + i, left);
                const vr d = load_part(p->x + at, left) - load_part(mean + i, left);
                const vr v = given ? g : g + (d * load_part(on_d + i, left) + load_part(constant + i, left));
                store_part(p->out + at, v, left);
            }
    }
}
static void batch_norm_backward_columns(void *arg, idx begin, idx end, int worker) {
    (void)worker;
    backward_of_columns(arg, begin, end, 0);
}
static void batch_norm_inference_backward_columns(void *arg, idx begin, idx end, int worker) {
    (void)worker;
    backward_of_columns(arg, begin, end, 1);
}

static int batch_norm_backward(idx N, idx C, idx S, double eps, const void *dy, const void *x, const void *gamma,
                               const void *mean, const void *var, void *dx, void *dgamma, void *dbeta) {
    struct norm_call p = {.N = N, .C = C, .S = S, .eps = eps, .dy = dy, .x = x, .gamma = gamma, .mean = mean, .var = var,
                          .out = dx, .dgamma = dgamma, .dbeta = dbeta};
    for_channels(&p, batch_norm_backward_channels, batch_norm_backward_columns);
    return CNN_OK;
}

static int batch_norm_inference_backward(idx N, idx C, idx S, double eps, const void *dy, const void *x, const void *gamma,
                                         const void *mean, const void *var, void *dx, void *dgamma, void *dbeta) {
    struct norm_call p = {.N = N, .C = C, .S = S, .eps = eps, .dy = dy, .x = x, .gamma = gamma, .mean = mean, .var = var,
                          .out = dx, .dgamma = dgamma, .dbeta = dbeta};
    for_channels(&p, batch_norm_inference_backward_channels, batch_norm_inference_backward_columns);
    return CNN_OK;
}

/* ---- layer norm: N rows of S; var_out, var hold 1 / sqrt(var + eps) ---- */

static void layer_norm_rows(void *arg, idx begin, idx end, int worker) {
    (void)worker;
    const struct norm_call *p = arg;
    const idx S = p->S;
    const REAL *gamma = p->gamma, *beta = p->beta;   /* read once: for all the compiler knows, a stored vector may change *p */
    for (idx r = begin; r < end; r++) {
        const REAL *x = p->x + r * S;
        REAL *y = p->out + r * S;
        const struct moments m = moments_of(x, 1, S, S);
        const REAL mean = (REAL)m.mean, rest = (REAL)(m.mean - mean);
        const REAL scale = (REAL)(1 / sqrt(m.m2 / m.count + p->eps));
        p->mean_out[r] = mean, p->var_out[r] = scale;
        for (idx i = 0; i < S; i += VL) {
            vr v = (load_part(x + i, S - i) - mean - rest) * scale;
            if (gamma) v *= load_part(gamma + i, S - i);
            if (beta) v += load_part(beta + i, S - i);
            store_part(y + i, v, S - i);
        }
    }
}

static int layer_norm(idx R, idx D, double eps, const void *x, const void *gamma, const void *beta, void *y, void *mean,
                      void *rstd) {
    struct norm_call p = {.N = R, .S = D, .eps = eps, .x = x, .gamma = gamma, .beta = beta, .out = y, .mean_out = mean,
                          .var_out = rstd};
    if (D) parallel_for(R, grain_of(3.0 * (double)D), layer_norm_rows, &p);
    else fill(mean, NAN, R), fill(rstd, NAN, R);
    return CNN_OK;
}

/* Rows of one partial sum of dgamma and dbeta: at most 64 parts, so that their sum costs little. */
static idx rows_of_part(idx R) { return MAX(16, (R + 63) / 64); }

/* What dx of a row needs to know of the whole row. */
struct norm_row { const REAL *x, *dy; REAL *dx, mean, scale, shift, on_xhat, average; };

static struct norm_row norm_row_of(const struct norm_call *p, idx r) {
    const idx S = p->S;
    const REAL *x = p->x + r * S, *dy = p->dy + r * S, mean = p->mean[r], scale = p->var[r];
    double sum_g = 0, sum_gd = 0, sum_d = 0;
    for (idx i0 = 0; i0 < S; i0 += CHUNK) {
        vr a = {0}, u = {0}, e = {0};
        for (idx i = i0; i < MIN(S, i0 + CHUNK); i += VL) {
            vr g = load_part(dy + i, S - i), d = keep_lanes(load_part(x + i, S - i) - mean, S - i);
            if (p->gamma) g *= load_part(p->gamma + i, S - i);
            a += g, u += g * d, e += d;
        }
        sum_g += horizontal_sum(a), sum_gd += horizontal_sum(u), sum_d += horizontal_sum(e);
    }
    const double rest = sum_d / (double)S;   /* what rounding the mean left in x - mean */
    return (struct norm_row){x, dy, p->out + r * S, mean, scale, (REAL)rest,
                             (REAL)(scale * (sum_gd - rest * sum_g) / (double)S), (REAL)(sum_g / (double)S)};
}

/* dx of `rows` rows, 1 or 2: two share the ways to dgamma and dbeta, to which their dy x^ and dy are added one after the other. */
INLINE void layer_norm_backward_rows(const struct norm_call *p, const int rows, idx r, REAL *dgamma, REAL *dbeta) {
    const idx S = p->S;
    const REAL *gammas = p->gamma;
    struct norm_row row[2];
    for (int k = 0; k < rows; k++) row[k] = norm_row_of(p, r + k);
    for (idx i = 0; i < S; i += VL) {
        const vr gamma = gammas ? load_part(gammas + i, S - i) : broadcast(1);
        vr on_gamma = load_part(dgamma + i, S - i), on_beta = load_part(dbeta + i, S - i);
#pragma GCC unroll 2
        for (int k = 0; k < rows; k++) {
            const vr dy = load_part(row[k].dy + i, S - i);
            const vr xhat = (load_part(row[k].x + i, S - i) - row[k].mean - row[k].shift) * row[k].scale;
            store_part(row[k].dx + i, (dy * gamma - row[k].average - xhat * row[k].on_xhat) * row[k].scale, S - i);
            on_gamma += dy * xhat, on_beta += dy;
        }
        store_part(dgamma + i, on_gamma, S - i), store_part(dbeta + i, on_beta, S - i);
    }
}

static void layer_norm_backward_parts(void *arg, idx begin, idx end, int worker) {
    (void)worker;
    const struct norm_call *p = arg;
    const idx rows = rows_of_part(p->N);
    for (idx part = begin; part < end; part++) {
        REAL *sums = p->partial + part * 2 * p->S;
        memset(sums, 0, sizeof(REAL) * (size_t)(2 * p->S));
        const idx last = MIN(p->N, (part + 1) * rows);
        idx r = part * rows;
        for (; r + 2 <= last; r += 2) layer_norm_backward_rows(p, 2, r, sums, sums + p->S);
        if (r < last) layer_norm_backward_rows(p, 1, r, sums, sums + p->S);
    }
}

static int layer_norm_backward(idx R, idx D, const void *dy, const void *x, const void *gamma, const void *mean,
                               const void *rstd, void *dx, void *dgamma, void *dbeta) {
    struct norm_call p = {.N = R, .S = D, .dy = dy, .x = x, .gamma = gamma, .mean = mean, .var = rstd, .out = dx,
                          .dgamma = dgamma, .dbeta = dbeta};
    if (R < 1) fill(dgamma, 0, D), fill(dbeta, 0, D);
    if (R < 1 || D < 1) return CNN_OK;
    const idx rows = rows_of_part(R), parts = (R + rows - 1) / rows;
    p.partial = scratch_take(sizeof(REAL) * (size_t)(parts * 2 * D));
    if (!p.partial) return CNN_NO_MEMORY;
    parallel_for(parts, grain_of(4.0 * (double)(D * rows)), layer_norm_backward_parts, &p);
    for (idx i = 0; i < D; i++) p.dgamma[i] = p.dbeta[i] = 0;
    for (idx part = 0; part < parts; part++) {
        const REAL *sums = p.partial + part * 2 * D;
        for (idx i = 0; i < D; i++) p.dgamma[i] += sums[i];
        for (idx i = 0; i < D; i++) p.dbeta[i] += sums[D + i];
    }
    scratch_give(p.partial);
    return CNN_OK;
}

#include "norm_local.c"

static const struct norm_kernels norm_kernels = {
    .batch_norm = batch_norm,
    .batch_norm_backward = batch_norm_backward,
    .batch_norm_inference = batch_norm_inference,
    .batch_norm_inference_backward = batch_norm_inference_backward,
    .layer_norm = layer_norm,
    .layer_norm_backward = layer_norm_backward,
    .local_response_norm = local_response_norm,
    .local_response_norm_backward = local_response_norm_backward,
    .local_contrast_norm = local_contrast_norm,
    .local_contrast_norm_backward = local_contrast_norm_backward,
};
