/* Normalisations within a neighbourhood; part of norm.c. Threads split strips of an image, or images. */

/* ---- local response norm: strips of LRN_WIDTH positions through all channels, so that neighbours are read from L1 ---- */

#define LRN_WIDTH (4 * VL)

struct lrn_call {
    idx N, C, S, size;
    double alpha, beta, k;
    const REAL *x, *dy, *s;
    REAL *out, *s_out, *scratch;
};

INLINE vr negative_power(vr s, double beta) {
    if (beta == 0.75) return 1 / (vsqrt(s) * vsqrt(vsqrt(s)));
    if (beta == 0.5) return 1 / vsqrt(s);
    if (beta == 1) return 1 / s;
    return vexp((REAL)-beta * vlog(s));
}

static idx strips(idx S) { return (S + LRN_WIDTH - 1) / LRN_WIDTH; }

static void local_response_norm_strips(void *arg, idx begin, idx end, int worker) {
    (void)worker;
    const struct lrn_call *p = arg;
    const idx C = p->C, S = p->S, size = p->size, per_image = strips(S);
    const REAL alpha = (REAL)(p->alpha / (double)size), k = (REAL)p->k;
    const double beta = p->beta;
    const REAL *all = p->x;
    REAL *y = p->out, *s_out = p->s_out;
    for (idx strip = begin; strip < end; strip++) {
        const idx image = strip / per_image * C * S, from = strip % per_image * LRN_WIDTH;
        for (idx c = 0; c < C; c++) {
            const idx first = MAX(0, c - size / 2), last = MIN(C - 1, c + (size - 1) / 2);
            for (idx i = from; i < MIN(S, from + LRN_WIDTH); i += VL) {
                const REAL *x = all + image + i;
                const idx left = S - i;
                vr sum = {0};
                for (idx j = first; j <= last; j++) {
                    vr v = load_part(x + j * S, left);
                    sum += v * v;
                }
                vr s = k + alpha * sum;
                store_part(s_out + image + c * S + i, s, left);
                store_part(y + image + c * S + i, load_part(x + c * S, left) * negative_power(s, beta), left);
            }
        }
    }
}

static double lrn_work(idx C, idx size) { return (double)C * LRN_WIDTH * (4 + (double)MIN(C, size) / 4); }

static int local_response_norm(idx N, idx C, idx S, idx size, double alpha, double beta, double k, const void *x, void *y,
                               void *s) {
    struct lrn_call p = {.N = N, .C = C, .S = S, .size = size, .alpha = alpha, .beta = beta, .k = k, .x = x, .out = y,
                         .s_out = s};
    parallel_for(N * strips(S), grain_of(lrn_work(C, size)), local_response_norm_strips, &p);
    return CNN_OK;
}

static void local_response_norm_backward_strips(void *arg, idx begin, idx end, int worker) {
    const struct lrn_call *p = arg;
    const idx C = p->C, S = p->S, per_image = strips(S);
    const REAL coupling = (REAL)(2 * p->alpha * p->beta / (double)p->size);
    REAL *inhibition = p->scratch + worker * 2 * C * LRN_WIDTH, *power = inhibition + C * LRN_WIDTH;
    for (idx strip = begin; strip < end; strip++) {
        const idx image = strip / per_image * C * S, from = strip % per_image * LRN_WIDTH, width = MIN(S - from, LRN_WIDTH);
        for (idx c = 0; c < C; c++)
            for (idx i = 0; i < width; i += VL) {
                const idx at = image + c * S + from + i, left = width - i;
                vr s = load_part(p->s + at, left), f = negative_power(s, p->beta);
                store(power + c * LRN_WIDTH + i, f);
                store(inhibition + c * LRN_WIDTH + i, load_part(p->dy + at, left) * load_part(p->x + at, left) * f / s);
            }
        for (idx c = 0; c < C; c++) {
            const idx first = MAX(0, c - (p->size - 1) / 2), last = MIN(C - 1, c + p->size / 2);
            for (idx i = 0; i < width; i += VL) {
                const idx at = image + c * S + from + i, left = width - i;
                vr sum = {0};
                for (idx j = first; j <= last; j++) sum += load(inhibition + j * LRN_WIDTH + i);
                vr direct = load_part(p->dy + at, left) * load(power + c * LRN_WIDTH + i);
                store_part(p->out + at, direct - coupling * load_part(p->x + at, left) * sum, left);
            }
        }
    }
}

static int local_response_norm_backward(idx N, idx C, idx S, idx size, double alpha, double beta, const void *dy,
                                        const void *x, const void *s, void *dx) {
    struct lrn_call p = {.N = N, .C = C, .S = S, .size = size, .alpha = alpha, .beta = beta, .x = x, .dy = dy, .s = s,
                         .out = dx};
    const idx grain = grain_of(2 * lrn_work(C, size));
    p.scratch = scratch_take(sizeof(REAL) * (size_t)(2 * C * LRN_WIDTH) * (size_t)parallel_workers(N * strips(S), grain));
    if (!p.scratch) return CNN_NO_MEMORY;
    parallel_for(N * strips(S), grain, local_response_norm_backward_strips, &p);
    scratch_give(p.scratch);
    return CNN_OK;
}

/* ---- local contrast norm: one image after the other ---- */

struct lcn_call {
    idx C, H, W, radius;
    double eps;
    const REAL *x, *dy, *v, *deviation;
    REAL *out, *v_out, *deviation_out;
    const REAL *weight, *weight_h, *weight_w;   /* Gaussian (radius + 1); its sum inside the image at each row and column */
    REAL *scratch;
    idx scratch_size;
};

/* out = sum over offsets o of weight[|o|] * in shifted by o, inside n lines of `width` contiguous values. */
static void gaussian_over_lines(const struct lcn_call *p, const REAL *in, REAL *out) {
    for (idx h = 0; h < p->H; h++) {
        REAL *o = out + h * p->W;
        memcpy(o, in + h * p->W, sizeof(REAL) * (size_t)p->W);
        for (idx r = 1; r <= MIN(p->radius, p->H - 1); r++) {
            const REAL g = p->weight[r], *above = in + (h - r) * p->W, *below = in + (h + r) * p->W;
            if (h - r >= 0) for (idx w = 0; w < p->W; w++) o[w] += g * above[w];
            if (h + r < p->H) for (idx w = 0; w < p->W; w++) o[w] += g * below[w];
        }
    }
}

static void gaussian_within_lines(const struct lcn_call *p, const REAL *in, REAL *out) {
    for (idx h = 0; h < p->H; h++, in += p->W, out += p->W) {
        memcpy(out, in, sizeof(REAL) * (size_t)p->W);
        for (idx r = 1; r <= MIN(p->radius, p->W - 1); r++) {
            const REAL g = p->weight[r];
            for (idx w = r; w < p->W; w++) out[w] += g * in[w - r];
            for (idx w = 0; w < p->W - r; w++) out[w] += g * in[w + r];
        }
    }
}

static void divide_by_weights(const struct lcn_call *p, REAL *a) {
    for (idx h = 0; h < p->H; h++)
        for (idx w = 0; w < p->W; w++) a[h * p->W + w] /= p->weight_h[h] * p->weight_w[w];
}

/* a = B a and a = B^T a, B being the division after both sums. */
static void blur(const struct lcn_call *p, REAL *a, REAL *other) {
    gaussian_over_lines(p, a, other);
    gaussian_within_lines(p, other, a);
    divide_by_weights(p, a);
}
static void blur_adjoint(const struct lcn_call *p, REAL *a, REAL *other) {
    divide_by_weights(p, a);
    gaussian_over_lines(p, a, other);
    gaussian_within_lines(p, other, a);
}

/* max(average, deviation, eps); NaN wins. */
INLINE REAL lcn_divisor(REAL average, REAL deviation, REAL eps) {
    REAL d = deviation > average ? deviation : average;
    return d > eps || d != d ? d : eps;
}

static REAL average_of(const REAL *a, idx n) {
    double sum = 0;
    for (idx i = 0; i < n; i++) sum += a[i];
    return (REAL)(sum / (double)n);
}

static void local_contrast_norm_images(void *arg, idx begin, idx end, int worker) {
    const struct lcn_call *p = arg;
    const idx C = p->C, M = p->H * p->W;
    REAL *mean = p->scratch + worker * p->scratch_size, *other = mean + M;
    const REAL eps = (REAL)p->eps, channels = (REAL)C;
    for (idx n = begin; n < end; n++) {
        const REAL *x = p->x + n * C * M, origin = x[0];
        REAL *v = p->v_out + n * C * M, *y = p->out + n * C * M, *deviation = p->deviation_out + n * M;
        memset(mean, 0, sizeof(REAL) * (size_t)M);
        for (idx c = 0; c < C; c++)
            for (idx i = 0; i < M; i++) mean[i] += x[c * M + i] - origin;
        for (idx i = 0; i < M; i++) mean[i] /= channels;
        blur(p, mean, other);
        memset(deviation, 0, sizeof(REAL) * (size_t)M);
        for (idx c = 0; c < C; c++)
            for (idx i = 0; i < M; i++) {
                REAL d = x[c * M + i] - origin - mean[i];
                v[c * M + i] = d;
                deviation[i] += d * d;
            }
        for (idx i = 0; i < M; i++) deviation[i] /= channels;
        blur(p, deviation, other);
        for (idx i = 0; i < M; i++) deviation[i] = FOR_REAL(sqrtf, sqrt)(deviation[i]);
        const REAL average = average_of(deviation, M);
        for (idx i = 0; i < M; i++) mean[i] = lcn_divisor(average, deviation[i], eps);
        for (idx c = 0; c < C; c++)
            for (idx i = 0; i < M; i++) y[c * M + i] = v[c * M + i] / mean[i];
    }
}

static void local_contrast_norm_backward_images(void *arg, idx begin, idx end, int worker) {
    const struct lcn_call *p = arg;
    const idx C = p->C, M = p->H * p->W;
    REAL *divisor = p->scratch + worker * p->scratch_size, *ratio = divisor + M, *other = ratio + M;
    const REAL eps = (REAL)p->eps, channels = (REAL)C;
    for (idx n = begin; n < end; n++) {
        const REAL *dy = p->dy + n * C * M, *v = p->v + n * C * M, *deviation = p->deviation + n * M;
        REAL *dx = p->out + n * C * M;
        const REAL average = average_of(deviation, M);
        memset(ratio, 0, sizeof(REAL) * (size_t)M);
        for (idx c = 0; c < C; c++)
            for (idx i = 0; i < M; i++) ratio[i] -= dy[c * M + i] * v[c * M + i];
        double share = 0;
        for (idx i = 0; i < M; i++) {
            divisor[i] = lcn_divisor(average, deviation[i], eps);
            ratio[i] /= divisor[i] * divisor[i];   /* of the divisor; now to the one of its three values that it took */
            const int local = deviation[i] >= average && deviation[i] >= eps;
            if (!local && average >= eps) share += ratio[i];
            if (!local) ratio[i] = 0;
        }
        const REAL everywhere = (REAL)(share / (double)M);
        for (idx i = 0; i < M; i++) ratio[i] = deviation[i] > 0 ? (ratio[i] + everywhere) / deviation[i] : 0;
        blur_adjoint(p, ratio, other);
        for (idx i = 0; i < M; i++) ratio[i] /= channels;
        for (idx c = 0; c < C; c++)
            for (idx i = 0; i < M; i++) dx[c * M + i] = dy[c * M + i] / divisor[i] + v[c * M + i] * ratio[i];
        memset(ratio, 0, sizeof(REAL) * (size_t)M);
        for (idx c = 0; c < C; c++)
            for (idx i = 0; i < M; i++) ratio[i] += dx[c * M + i];
        blur_adjoint(p, ratio, other);
        for (idx c = 0; c < C; c++)
            for (idx i = 0; i < M; i++) dx[c * M + i] -= ratio[i] / channels;
    }
}

static int run_lcn(struct lcn_call *p, idx N, idx size, double sigma, range_body body) {
    if (p->C < 1) fill(p->deviation_out, NAN, N * p->H * p->W);
    if (p->C < 1 || p->H < 1 || p->W < 1) return CNN_OK;
    p->radius = MIN(size / 2, MAX(p->H, p->W));
    const double M = (double)p->H * (double)p->W;
    const idx grain = grain_of(M * (6.0 * (double)p->C + 4.0 * (double)p->radius));
    p->scratch_size = 3 * p->H * p->W;
    const idx weights = p->radius + 1 + p->H + p->W;
    REAL *block = scratch_take(sizeof(REAL) * (size_t)(weights + p->scratch_size * parallel_workers(N, grain)));
    if (!block) return CNN_NO_MEMORY;
    REAL *g = block, *weight_h = g + p->radius + 1, *weight_w = weight_h + p->H;
    for (idx r = 0; r <= p->radius; r++) g[r] = (REAL)exp(-0.5 * ((double)r / sigma) * ((double)r / sigma));
    for (idx axis = 0; axis < 2; axis++) {
        const idx length = axis ? p->W : p->H;
        REAL *weight = axis ? weight_w : weight_h;
        for (idx i = 0; i < length; i++) {
            double sum = 1;
            for (idx r = 1; r <= p->radius; r++) sum += g[r] * ((i - r >= 0) + (i + r < length));
            weight[i] = (REAL)sum;
        }
    }
    p->weight = g, p->weight_h = weight_h, p->weight_w = weight_w, p->scratch = block + weights;
    parallel_for(N, grain, body, p);
    scratch_give(block);
    return CNN_OK;
}

static int local_contrast_norm(idx N, idx C, idx H, idx W, idx size, double sigma, double eps, const void *x, void *y, void *v,
                               void *deviation) {
    struct lcn_call p = {.C = C, .H = H, .W = W, .eps = eps, .x = x, .out = y, .v_out = v, .deviation_out = deviation};
    return run_lcn(&p, N, size, sigma, local_contrast_norm_images);
}

static int local_contrast_norm_backward(idx N, idx C, idx H, idx W, idx size, double sigma, double eps, const void *dy,
                                        const void *v, const void *deviation, void *dx) {
    struct lcn_call p = {.C = C, .H = H, .W = W, .eps = eps, .dy = dy, .v = v, .deviation = deviation, .out = dx};
    return run_lcn(&p, N, size, sigma, local_contrast_norm_backward_images);
}
