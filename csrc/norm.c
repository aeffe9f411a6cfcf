/* Normalisations. Sums of many values are taken in chunks that stay in L1: within a chunk in vectors, from chunk to chunk in
   double. Chunks depend on the shape only. Threads split channels or rows. */

enum { CHUNK = 1024 };   /* values per partial sum */

struct norm_call {
    idx N, C, S;
    const REAL *x, *dy, *gamma, *beta, *mean, *var;
    REAL *out, *mean_out, *var_out, *dgamma, *dbeta;   /* out: y or dx */
    REAL *partial;                                     /* layer norm: sums over parts of the rows */
    double eps;
};

static REAL or_one(const REAL *a, idx i) { return a ? a[i] : 1; }
static REAL or_zero(const REAL *a, idx i) { return a ? a[i] : 0; }

/* ---- mean and variance ---- */

struct moments { double count, mean, m2; };   /* m2 = sum of (x - mean)^2 */

/* Chan's rule. */
static struct moments join(struct moments a, struct moments b) {
    double count = a.count + b.count, delta = b.mean - a.mean;
    const double share = b.count / count;
    return (struct moments){count, a.mean + delta * share, a.m2 + b.m2 + delta * delta * a.count * share};
}

/* Two passes over one chunk of `runs` runs of `length` values, `step` apart. Values are taken relative to `origin`, one of
   them, so that a constant has a variance of exactly 0; the mean of the first pass is corrected by the second. */
static struct moments moments_of_chunk(const REAL *x, idx runs, idx length, idx step, REAL origin) {
    const double count = (double)(runs * length);
    vr a = {0}, b = {0};
    for (idx r = 0; r < runs; r++) {
        const REAL *p = x + r * step;
        idx i = 0;
        for (; i + 2 * VL <= length; i += 2 * VL) a += load(p + i) - origin, b += load(p + i + VL) - origin;
        for (; i < length; i += VL) a += keep_lanes(load_part(p + i, length - i) - origin, length - i);
    }
    const REAL mean = (REAL)(horizontal_sum(a + b) / count);
    vr c = {0}, d = {0};
    a = b = (vr){0};
    for (idx r = 0; r < runs; r++) {
        const REAL *p = x + r * step;
        idx i = 0;
        for (; i + 2 * VL <= length; i += 2 * VL) {
            vr u = load(p + i) - origin - mean, v = load(p + i + VL) - origin - mean;
            a += u, b += v, c += u * u, d += v * v;
        }
        for (; i < length; i += VL) {
            vr u = keep_lanes(load_part(p + i, length - i) - origin - mean, length - i);
            a += u, c += u * u;
        }
    }
    const double rest = horizontal_sum(a + b) / count;
    return (struct moments){count, mean + rest, horizontal_sum(c + d) - rest * rest * count};
}

/* Of N runs of S values, `step` apart; the mean is relative to x[0]. */
static struct moments moments_of(const REAL *x, idx N, idx S, idx step) {
    struct moments total = {0};
    const idx runs = MAX(1, CHUNK / S), length = MIN(S, CHUNK);
    for (idx n = 0; n < N; n += runs)
        for (idx i = 0; i < S; i += length)
            total = join(total, moments_of_chunk(x + n * step + i, MIN(runs, N - n), MIN(length, S - i), step, x[0]));
    if (total.m2 < 0) total.m2 = 0;
    return total;
}

/* ---- batch norm: x (N, C, S) ---- */

/* y = (x - mean) scale + shift over all planes of channel c. */
INLINE void scale_channel(const struct norm_call *p, idx c, REAL mean, REAL scale, REAL shift) {
    for (idx n = 0; n < p->N; n++) {
        const idx at = (n * p->C + c) * p->S;
        for (idx i = 0; i < p->S; i += VL)
            store_part(p->out + at + i, (load_part(p->x + at + i, p->S - i) - mean) * scale + shift, p->S - i);
    }
}

static void batch_norm_channels(void *arg, idx begin, idx end, int worker) {
    (void)worker;
    const struct norm_call *p = arg;
    for (idx c = begin; c < end; c++) {
        const REAL *x = p->x + c * p->S;
        struct moments m = moments_of(x, p->N, p->S, p->C * p->S);
        const double var = m.m2 / m.count, scale = or_one(p->gamma, c) / sqrt(var + p->eps);
        const REAL mean = (REAL)(m.mean + x[0]);
        const double rest = (x[0] - (double)mean) + m.mean;   /* rounding the mean shifts y; beta takes it back */
        p->mean_out[c] = mean, p->var_out[c] = (REAL)var;
        scale_channel(p, c, mean, (REAL)scale, (REAL)(or_zero(p->beta, c) - rest * scale));
    }
}

/* S = 1: VL channels side by side. Sums of 256 rows are added to sums of those. */
#define FOR_ROWS(n, N, flush) for (idx n = 0; n < (N); ((++n & 255) == 0 || n == (N)) ? (void)(flush) : (void)0)

static void batch_norm_columns(void *arg, idx begin, idx end, int worker) {
    (void)worker;
    const struct norm_call *p = arg;
    for (idx c = begin * VL; c < MIN(p->C, end * VL); c += VL) {
        const idx width = p->C - c, N = p->N, C = p->C;
        const REAL *x = p->x + c, count = (REAL)N;
        vr origin = load_part(x, width), s = {0}, total = {0};
        FOR_ROWS(n, N, (total += s, s = (vr){0})) s += load_part(x + n * C, width) - origin;
        vr mean = total / count, q = {0}, rest = {0}, squares = {0};
        s = (vr){0};
        FOR_ROWS(n, N, (rest += s, squares += q, s = q = (vr){0})) {
            vr d = load_part(x + n * C, width) - origin - mean;
            s += d, q += d * d;
        }
        rest /= count, mean += rest;
        vr var = squares / count - rest * rest;
        var = choose(var < 0, (vr){0}, var);
        vr scale = (p->gamma ? load_part(p->gamma + c, width) : broadcast(1)) / vsqrt(var + (REAL)p->eps);
        vr beta = p->beta ? load_part(p->beta + c, width) : (vr){0};
        for (idx n = 0; n < N; n++)
            store_part(p->out + n * C + c, (load_part(x + n * C, width) - origin - mean) * scale + beta, width);
        store_part(p->mean_out + c, origin + mean, width);
        store_part(p->var_out + c, var, width);
    }
}

static void fill(REAL *a, REAL value, idx n) {
    if (a) for (idx i = 0; i < n; i++) a[i] = value;
}

static void for_channels(struct norm_call *p, range_body channels, range_body columns) {
    if (p->N < 1 || p->S < 1) {   /* the mean of nothing; sums of nothing */
        fill(p->mean_out, NAN, p->C), fill(p->var_out, NAN, p->C), fill(p->dgamma, 0, p->C), fill(p->dbeta, 0, p->C);
        return;
    }
    const double work = 3.0 * (double)p->N * (double)p->S;
    if (p->S == 1) parallel_for((p->C + VL - 1) / VL, grain_of(work), columns, p);
    else parallel_for(p->C, grain_of(work), channels, p);
}

static int batch_norm(idx N, idx C, idx S, double eps, const void *x, const void *gamma, const void *beta, void *y, void *mean,
                      void *var) {
    struct norm_call p = {.N = N, .C = C, .S = S, .eps = eps, .x = x, .gamma = gamma, .beta = beta, .out = y, .mean_out = mean,
                          .var_out = var};
    for_channels(&p, batch_norm_channels, batch_norm_columns);
    return CNN_OK;
}

/* Sums over channel c of dy, dy d and d, where d = x - mean. */
struct channel_sums { double dy, dy_d, d; };

static struct channel_sums sums_of_channel(const struct norm_call *p, idx c) {
    const REAL mean = p->mean[c];
    const idx S = p->S, runs = MAX(1, CHUNK / S), length = MIN(S, CHUNK);
    struct channel_sums total = {0};
    for (idx n0 = 0; n0 < p->N; n0 += runs)
        for (idx i0 = 0; i0 < S; i0 += length) {
            vr a = {0}, b = {0}, u = {0}, v = {0}, e = {0}, f = {0};
            for (idx n = n0; n < MIN(p->N, n0 + runs); n++) {
                const REAL *x = p->x + (n * p->C + c) * S, *dy = p->dy + (n * p->C + c) * S;
                const idx end = MIN(S, i0 + length);
                idx i = i0;
                for (; i + 2 * VL <= end; i += 2 * VL) {
                    vr g = load(dy + i), h = load(dy + i + VL), d = load(x + i) - mean, k = load(x + i + VL) - mean;
                    a += g, b += h, u += g * d, v += h * k, e += d, f += k;
                }
                for (; i < end; i += VL) {
                    vr g = load_part(dy + i, end - i), d = keep_lanes(load_part(x + i, end - i) - mean, end - i);
                    a += g, u += g * d, e += d;
                }
            }
            total.dy += horizontal_sum(a + b), total.dy_d += horizontal_sum(u + v), total.d += horizontal_sum(e + f);
        }
    return total;
}

/* dx = on_dy dy + on_d (x - mean) + constant */
INLINE void combine_channel(const struct norm_call *p, idx c, REAL on_dy, REAL on_d, REAL constant) {
    const REAL mean = p->mean[c];
    for (idx n = 0; n < p->N; n++) {
        const idx at = (n * p->C + c) * p->S;
        for (idx i = 0; i < p->S; i += VL) {
            vr g = load_part(p->dy + at + i, p->S - i), d = load_part(p->x + at + i, p->S - i) - mean;
            store_part(p->out + at + i, g * on_dy + (d * on_d + constant), p->S - i);
        }
    }
}

static void batch_norm_backward_channels(void *arg, idx begin, idx end, int worker) {
    (void)worker;
    const struct norm_call *p = arg;
    const double m = (double)p->N * (double)p->S;
    for (idx c = begin; c < end; c++) {
        const struct channel_sums s = sums_of_channel(p, c);
        const double r = 1 / sqrt(p->var[c] + p->eps), shift = s.d / m;   /* what rounding the mean left in d */
        const double dgamma = (s.dy_d - shift * s.dy) * r, scale = or_one(p->gamma, c) * r, on_d = -scale * r * dgamma / m;
        p->dgamma[c] = (REAL)dgamma, p->dbeta[c] = (REAL)s.dy;
        combine_channel(p, c, (REAL)scale, (REAL)on_d, (REAL)(-scale * s.dy / m - on_d * shift));
    }
}

struct column_sums { vr dy, dy_d, d; };

INLINE struct column_sums sums_of_columns(const struct norm_call *p, idx c, idx width, vr mean) {
    struct column_sums total = {0};
    vr a = {0}, b = {0}, e = {0};
    FOR_ROWS(n, p->N, (total.dy += a, total.dy_d += b, total.d += e, a = b = e = (vr){0})) {
        vr g = load_part(p->dy + n * p->C + c, width), d = load_part(p->x + n * p->C + c, width) - mean;
        a += g, b += g * d, e += d;
    }
    return total;
}

static void batch_norm_backward_columns(void *arg, idx begin, idx end, int worker) {
    (void)worker;
    const struct norm_call *p = arg;
    const REAL m = (REAL)p->N;
    for (idx c = begin * VL; c < MIN(p->C, end * VL); c += VL) {
        const idx width = p->C - c;
        const vr mean = load_part(p->mean + c, width);
        const struct column_sums s = sums_of_columns(p, c, width, mean);
        const vr r = 1 / vsqrt(load_part(p->var + c, width) + (REAL)p->eps), shift = s.d / m;
        const vr dgamma = (s.dy_d - shift * s.dy) * r;
        const vr scale = p->gamma ? load_part(p->gamma + c, width) * r : r, on_d = r * dgamma / m, average = s.dy / m;
        store_part(p->dgamma + c, dgamma, width);
        store_part(p->dbeta + c, s.dy, width);
        for (idx n = 0; n < p->N; n++) {
            vr g = load_part(p->dy + n * p->C + c, width), d = load_part(p->x + n * p->C + c, width) - mean - shift;
            store_part(p->out + n * p->C + c, (g - average - d * on_d) * scale, width);
        }
    }
}

static int batch_norm_backward(idx N, idx C, idx S, double eps, const void *dy, const void *x, const void *gamma,
                               const void *mean, const void *var, void *dx, void *dgamma, void *dbeta) {
    struct norm_call p = {.N = N, .C = C, .S = S, .eps = eps, .dy = dy, .x = x, .gamma = gamma, .mean = mean, .var = var,
                          .out = dx, .dgamma = dgamma, .dbeta = dbeta};
    for_channels(&p, batch_norm_backward_channels, batch_norm_backward_columns);
    return CNN_OK;
}

static void batch_norm_inference_channels(void *arg, idx begin, idx end, int worker) {
    (void)worker;
    const struct norm_call *p = arg;
    for (idx c = begin; c < end; c++)
        scale_channel(p, c, p->mean[c], (REAL)(or_one(p->gamma, c) / sqrt(p->var[c] + p->eps)), or_zero(p->beta, c));
}

static void batch_norm_inference_columns(void *arg, idx begin, idx end, int worker) {
    (void)worker;
    const struct norm_call *p = arg;
    for (idx c = begin * VL; c < MIN(p->C, end * VL); c += VL) {
        const idx width = p->C - c;
        vr mean = load_part(p->mean + c, width), beta = p->beta ? load_part(p->beta + c, width) : (vr){0};
        vr gamma = p->gamma ? load_part(p->gamma + c, width) : broadcast(1);
        vr scale = gamma / vsqrt(load_part(p->var + c, width) + (REAL)p->eps);
        for (idx at = c; at < p->N * p->C; at += p->C)
            store_part(p->out + at, (load_part(p->x + at, width) - mean) * scale + beta, width);
    }
}

static int batch_norm_inference(idx N, idx C, idx S, double eps, const void *x, const void *gamma, const void *beta,
                                const void *mean, const void *var, void *y) {
    struct norm_call p = {.N = N, .C = C, .S = S, .eps = eps, .x = x, .gamma = gamma, .beta = beta, .mean = mean, .var = var,
                          .out = y};
    for_channels(&p, batch_norm_inference_channels, batch_norm_inference_columns);
    return CNN_OK;
}

static void batch_norm_inference_backward_channels(void *arg, idx begin, idx end, int worker) {
    (void)worker;
    const struct norm_call *p = arg;
    for (idx c = begin; c < end; c++) {
        const struct channel_sums s = sums_of_channel(p, c);
        const double r = 1 / sqrt(p->var[c] + p->eps);
        const REAL scale = (REAL)(or_one(p->gamma, c) * r);
        p->dgamma[c] = (REAL)(s.dy_d * r), p->dbeta[c] = (REAL)s.dy;
        for (idx n = 0; n < p->N; n++) {
            const idx at = (n * p->C + c) * p->S;
            for (idx i = 0; i < p->S; i += VL)
                store_part(p->out + at + i, load_part(p->dy + at + i, p->S - i) * scale, p->S - i);
        }
    }
}

static void batch_norm_inference_backward_columns(void *arg, idx begin, idx end, int worker) {
    (void)worker;
    const struct norm_call *p = arg;
    for (idx c = begin * VL; c < MIN(p->C, end * VL); c += VL) {
        const idx width = p->C - c;
        const struct column_sums s = sums_of_columns(p, c, width, load_part(p->mean + c, width));
        const vr r = 1 / vsqrt(load_part(p->var + c, width) + (REAL)p->eps);
        const vr scale = p->gamma ? load_part(p->gamma + c, width) * r : r;
        store_part(p->dgamma + c, s.dy_d * r, width);
        store_part(p->dbeta + c, s.dy, width);
        for (idx at = c; at < p->N * p->C; at += p->C) store_part(p->out + at, load_part(p->dy + at, width) * scale, width);
    }
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
    for (idx r = begin; r < end; r++) {
        const REAL *x = p->x + r * p->S;
        const struct moments m = moments_of(x, 1, p->S, p->S);
        const REAL mean = (REAL)(m.mean + x[0]), rest = (REAL)((x[0] - (double)mean) + m.mean);
        const REAL scale = (REAL)(1 / sqrt(m.m2 / m.count + p->eps));
        p->mean_out[r] = mean, p->var_out[r] = scale;
        for (idx i = 0; i < p->S; i += VL) {
            const idx left = p->S - i;
            vr y = (load_part(x + i, left) - mean - rest) * scale;
            if (p->gamma) y *= load_part(p->gamma + i, left);
            if (p->beta) y += load_part(p->beta + i, left);
            store_part(p->out + r * p->S + i, y, left);
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

/* dx of one row; adds its dy x^ and dy to dgamma and dbeta. */
static void layer_norm_backward_row(const struct norm_call *p, idx r, REAL *dgamma, REAL *dbeta) {
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
    const REAL shift = (REAL)rest, on_xhat = (REAL)(scale * (sum_gd - rest * sum_g) / (double)S);
    const REAL average = (REAL)(sum_g / (double)S);
    for (idx i = 0; i < S; i += VL) {
        vr dyi = load_part(dy + i, S - i), xhat = (load_part(x + i, S - i) - mean - shift) * scale;
        vr g = p->gamma ? dyi * load_part(p->gamma + i, S - i) : dyi;
        store_part(p->out + r * S + i, (g - average - xhat * on_xhat) * scale, S - i);
        store_part(dgamma + i, load_part(dgamma + i, S - i) + dyi * xhat, S - i);
        store_part(dbeta + i, load_part(dbeta + i, S - i) + dyi, S - i);
    }
}

static void layer_norm_backward_parts(void *arg, idx begin, idx end, int worker) {
    (void)worker;
    const struct norm_call *p = arg;
    const idx rows = rows_of_part(p->N);
    for (idx part = begin; part < end; part++) {
        REAL *sums = p->partial + part * 2 * p->S;
        memset(sums, 0, sizeof(REAL) * (size_t)(2 * p->S));
        for (idx r = part * rows; r < MIN(p->N, (part + 1) * rows); r++) layer_norm_backward_row(p, r, sums, sums + p->S);
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
