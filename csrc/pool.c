/* Pooling. Threads split the N * C planes. Windows that lie inside the image from left to right are vectorised along a row of
   outputs, for a horizontal stride of 1 or 2; the few at the left and right border are done one by one. */

#define LANES_IN_VECTOR (VECTOR_BYTES / (REAL_IS_FLOAT ? 4 : 8))
#if LANES_IN_VECTOR == 2
#define EVEN_LANES(a, b) __builtin_shufflevector(a, b, 0, 2)
#define ODD_LANES(a, b) __builtin_shufflevector(a, b, 1, 3)
#define ZIP_LOW(a, b) __builtin_shufflevector(a, b, 0, 2)
#define ZIP_HIGH(a, b) __builtin_shufflevector(a, b, 1, 3)
#elif LANES_IN_VECTOR == 4
#define EVEN_LANES(a, b) __builtin_shufflevector(a, b, 0, 2, 4, 6)
#define ODD_LANES(a, b) __builtin_shufflevector(a, b, 1, 3, 5, 7)
#define ZIP_LOW(a, b) __builtin_shufflevector(a, b, 0, 4, 1, 5)
#define ZIP_HIGH(a, b) __builtin_shufflevector(a, b, 2, 6, 3, 7)
#elif LANES_IN_VECTOR == 8
#define EVEN_LANES(a, b) __builtin_shufflevector(a, b, 0, 2, 4, 6, 8, 10, 12, 14)
#define ODD_LANES(a, b) __builtin_shufflevector(a, b, 1, 3, 5, 7, 9, 11, 13, 15)
#define ZIP_LOW(a, b) __builtin_shufflevector(a, b, 0, 8, 1, 9, 2, 10, 3, 11)
#define ZIP_HIGH(a, b) __builtin_shufflevector(a, b, 4, 12, 5, 13, 6, 14, 7, 15)
#else
#define EVEN_LANES(a, b) __builtin_shufflevector(a, b, 0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30)
#define ODD_LANES(a, b) __builtin_shufflevector(a, b, 1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31)
#define ZIP_LOW(a, b) __builtin_shufflevector(a, b, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23)
#define ZIP_HIGH(a, b) __builtin_shufflevector(a, b, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31)
#endif

/* 2 * VL elements from p as evens and odds; only the first n are read unless `full`. */
INLINE void load_pairs(const REAL *p, idx n, int full, vr *even, vr *odd) {
    vr a = full ? load(p) : load_n(p, MIN(n, VL)), b = full ? load(p + VL) : load_n(p + VL, MAX(n - VL, 0));
    *even = EVEN_LANES(a, b), *odd = ODD_LANES(a, b);
}
INLINE void store_pairs(REAL *p, vr even, vr odd, idx n) {   /* the first n of the 2 * VL elements */
    vr a = ZIP_LOW(even, odd), b = ZIP_HIGH(even, odd);
    if (n == 2 * VL) {
        store(p, a), store(p + VL, b);
    } else {
        store_n(p, a, MIN(n, VL));
        store_n(p + VL, b, MAX(n - VL, 0));
    }
}

typedef uint8_t lane_bytes __attribute__((vector_size(LANES_IN_VECTOR)));   /* one byte per lane */
INLINE vi load_bytes(const uint8_t *p, idx room) {   /* room: bytes that may be read; lanes beyond hold anything */
    lane_bytes b = {0};
    if (room >= VL) memcpy(&b, p, sizeof b);
    else for (idx i = 0; i < room; i++) b[i] = p[i];
    return __builtin_convertvector(b, vi);
}
INLINE void store_bytes(uint8_t *p, vi v, idx n) {
    lane_bytes b = __builtin_convertvector(v, lane_bytes);
    if (n >= VL) memcpy(p, &b, sizeof b);
    else for (idx i = 0; i < n; i++) p[i] = b[i];
}

/* ---- windows ---- */

struct span { idx begin, end; };

/* Offsets inside the window at output o that fall into the image. */
INLINE struct span inside(idx o, idx stride, idx before, idx reach, idx size) {
    idx start = o * stride - before;
    return (struct span){MAX(0, -start), MIN(reach, size - start)};
}

/* Outputs whose windows need no clipping at left or right. */
static struct span unclipped_columns(const struct pool_shape *s) {
    idx begin = MIN(s->OW, (s->left + s->SW - 1) / s->SW), room = s->W + s->left - s->KW;
    idx end = room < 0 ? 0 : MIN(s->OW, room / s->SW + 1);
    return (struct span){begin, MAX(begin, end)};
}

static double work_of_plane(const struct pool_shape *s) {
    return (double)s->H * s->W + (double)s->OH * s->OW * s->KH * s->KW / 4;
}

struct pool_call {
    const struct pool_shape *s;
    const REAL *x, *y, *dy;
    const void *argmax;
    REAL *out;             /* y or dx */
    void *argmax_out;
    const REAL *x_end;
    int count_include_pad;
    double p;
    REAL *scratch;         /* scratch_size elements per worker */
    idx scratch_size;
};

/* ---- max pooling ---- */

INLINE REAL max_of_window(const struct pool_shape *s, const REAL *plane, idx oh, idx ow, idx *winner) {
    struct span rows = inside(oh, s->SH, s->top, s->KH, s->H), columns = inside(ow, s->SW, s->left, s->KW, s->W);
    const REAL *window = plane + (oh * s->SH - s->top) * s->W + ow * s->SW - s->left;
    REAL best = -INFINITY;
    *winner = rows.begin * s->KW + columns.begin;
    for (idx kh = rows.begin; kh < rows.end; kh++)
        for (idx kw = columns.begin; kw < columns.end; kw++) {
            REAL v = window[kh * s->W + kw];
            if (!(v <= best) && best == best) best = v, *winner = kh * s->KW + kw;   /* the first NaN wins */
        }
    return best;
}

INLINE void keep_larger(vr v, integer k, vr *best, vi *winner) {
    vi wins = ~(v <= *best) & (*best == *best);
    *best = choose(wins, v, *best);
    *winner = (wins & k) | (~wins & *winner);
}

/* n <= VL outputs; p: their first pixel in row kh = 0 of the window. Of argmax `room` bytes may be written. */
INLINE void max_block(idx KW, idx SW, struct span rows, const REAL *p, idx W, idx n, int full, REAL *y, uint8_t *argmax,
                      idx room) {
    vr best = broadcast(-INFINITY);
    vi winner = (integer)(rows.begin * KW) - (vi){0};
    for (idx kh = rows.begin; kh < rows.end; kh++) {
        const REAL *row = p + kh * W;
        for (idx kw = 0; kw < KW; kw += SW) {
            integer k = (integer)(kh * KW + kw);
            if (SW == 1) {
                keep_larger(full ? load(row + kw) : load_n(row + kw, n), k, &best, &winner);
                continue;
            }
            vr even, odd;
            load_pairs(row + kw, kw + 1 < KW ? 2 * n : 2 * n - 1, full, &even, &odd);
            keep_larger(even, k, &best, &winner);
            if (kw + 1 < KW) keep_larger(odd, k + 1, &best, &winner);
        }
    }
    if (n == VL) store(y, best);
    else store_n(y, best, n);
    store_bytes(argmax, winner, room >= VL ? VL : n);
}

INLINE void max_row(idx KW, idx SW, struct span rows, const REAL *p, const REAL *end, idx W, idx n, REAL *y, uint8_t *argmax,
                    idx room) {
    const idx reach = (rows.end - 1) * W + (KW - 1) / SW * SW + SW * VL;
    for (; n > 0; n -= VL, room -= VL, p += SW * VL, y += VL, argmax += VL)
        if (n >= VL && end - p >= reach) max_block(KW, SW, rows, p, W, VL, 1, y, argmax, room);
        else max_block(KW, SW, rows, p, W, MIN(n, VL), 0, y, argmax, room);
}

static void max_pool_planes(void *arg, idx begin, idx end, int worker) {
    (void)worker;
    const struct pool_call *c = arg;
    const struct pool_shape *s = c->s;
    const int bytes = s->KH * s->KW <= 256;
    const struct span fast = bytes && s->SW <= 2 ? unclipped_columns(s) : (struct span){s->OW, s->OW};
    for (idx i = begin; i < end; i++)
        for (idx oh = 0; oh < s->OH; oh++) {
            const REAL *plane = c->x + i * s->H * s->W;
            const idx out = (i * s->OH + oh) * s->OW, n = fast.end - fast.begin;
            const struct span rows = inside(oh, s->SH, s->top, s->KH, s->H);
            if (n) {   /* first, as it may write past its end, though not past the plane */
                const REAL *p = plane + (oh * s->SH - s->top) * s->W + fast.begin * s->SW - s->left;
                REAL *y = c->out + out + fast.begin;
                uint8_t *a = (uint8_t *)c->argmax_out + out + fast.begin;
                const idx room = (s->OH - oh) * s->OW - fast.begin;
                const int whole = s->SW == 2 && rows.end - rows.begin == s->KH;
                if (whole && s->KH == 2 && s->KW == 2) max_row(2, 2, (struct span){0, 2}, p, c->x_end, s->W, n, y, a, room);
                else if (whole && s->KH == 3 && s->KW == 3)
                    max_row(3, 2, (struct span){0, 3}, p, c->x_end, s->W, n, y, a, room);
                else if (s->SW == 2) max_row(s->KW, 2, rows, p, c->x_end, s->W, n, y, a, room);
                else max_row(s->KW, 1, rows, p, c->x_end, s->W, n, y, a, room);
            }
            for (idx ow = 0; ow < s->OW; ow++) {
                if (ow == fast.begin) ow = fast.end;
                if (ow == s->OW) break;
                idx k;
                c->out[out + ow] = max_of_window(s, plane, oh, ow, &k);
                if (bytes) ((uint8_t *)c->argmax_out)[out + ow] = (uint8_t)k;
                else ((int32_t *)c->argmax_out)[out + ow] = (int32_t)k;
            }
        }
}

static int max_pool2d(const struct pool_shape *s, const void *x, void *y, void *argmax) {
    struct pool_call c = {.s = s, .x = x, .out = y, .argmax_out = argmax};
    c.x_end = c.x + s->planes * s->H * s->W;
    parallel_for(s->planes, grain_of(work_of_plane(s)), max_pool_planes, &c);
    return CNN_OK;
}

INLINE vr load_lanes(const REAL *p, idx n) { return n >= VL ? load(p) : load_n(p, MAX(n, 0)); }
INLINE vr sent(vr g, vi k, integer offset) { return (vr)((vi)g & (k == offset)); }

/* 2 x 2, stride 2, no padding: every dx belongs to one window, so it is written once, without a branch. */
static void max_pool_2x2_backward(const struct pool_shape *s, const REAL *dy, const uint8_t *argmax, REAL *dx) {
    const uint8_t *argmax_end = argmax + s->OH * s->OW;
    for (idx oh = 0; oh < s->OH; oh++, dy += s->OW, argmax += s->OW) {
        REAL *upper = dx + 2 * oh * s->W, *lower = upper + s->W;
        for (idx ow = 0; ow < s->OW; ow += VL) {
            const idx n = MIN(VL, s->OW - ow);
            const vr g = load_lanes(dy + ow, n);
            const vi k = load_bytes(argmax + ow, argmax_end - argmax - ow);
            store_pairs(upper + 2 * ow, sent(g, k, 0), sent(g, k, 1), 2 * n);
            store_pairs(lower + 2 * ow, sent(g, k, 2), sent(g, k, 3), 2 * n);
        }
        for (idx w = 2 * s->OW; w < s->W; w++) upper[w] = lower[w] = 0;
    }
    memset(dx + 2 * s->OH * s->W, 0, sizeof(REAL) * (size_t)((s->H - 2 * s->OH) * s->W));
}

/* 3 x 3, stride 2, in the padded image: row 2 oh collects from window row oh (kh = 0) and oh - 1 (kh = 2), row 2 oh + 1 from oh
   (kh = 1); column 2 ow from ow (kw = 0) and ow - 1 (kw = 2), column 2 ow + 1 from ow (kw = 1). No branch per element. */
static idx max_pool_3x3_scratch(const struct pool_shape *s) { return 4 * (s->OW + VL); }   /* two rows of up to 2 OW + 2 VL */

/* v moved up by one lane; the last lane of `before` moves in. */
INLINE vr shift_in(vr before, vr v) {
#if LANES_IN_VECTOR == 2
    return __builtin_shufflevector(before, v, 1, 2);
#elif LANES_IN_VECTOR == 4
    return __builtin_shufflevector(before, v, 3, 4, 5, 6);
#elif LANES_IN_VECTOR == 8
    return __builtin_shufflevector(before, v, 7, 8, 9, 10, 11, 12, 13, 14);
#else
    return __builtin_shufflevector(before, v, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30);
#endif
}

/* Row r of the padded image, as far as it lies inside; of `line` 2 OW + 1 columns are meaningful, beyond them is 0. */
INLINE void copy_unpadded(const struct pool_shape *s, const REAL *line, idx r, REAL *dx) {
    if (r < s->top || r - s->top >= s->H) return;
    REAL *row = dx + (r - s->top) * s->W;
    const idx width = MIN(s->W, 2 * s->OW + 1 - s->left);
    for (idx w = 0; w < width; w += VL) {
        vr v = load_lanes(line + s->left + w, width - w);
        if (width - w >= VL) store(row + w, v);
        else store_n(row + w, v, width - w);
    }
    for (idx w = width; w < s->W; w++) row[w] = 0;
}

static void max_pool_3x3_backward(const struct pool_shape *s, const REAL *dy, const uint8_t *argmax, REAL *dx, REAL *scratch) {
    const idx OW = s->OW;
    const uint8_t *argmax_end = argmax + s->OH * OW;
    REAL *first = scratch, *second = scratch + 2 * (OW + VL);
    for (idx oh = 0; oh <= s->OH; oh++) {
        const REAL *here = dy + MIN(oh, s->OH - 1) * OW, *above = dy + MAX(oh - 1, 0) * OW;
        const uint8_t *k_here = argmax + (here - dy), *k_above = argmax + (above - dy);
        vr carry_first = {0}, carry_second = {0};
        for (idx ow = 0; ow <= OW; ow += VL) {
            const vr g = load_lanes(here + ow, oh < s->OH ? OW - ow : 0), h = load_lanes(above + ow, oh > 0 ? OW - ow : 0);
            const vi k = load_bytes(k_here + ow, argmax_end - k_here - ow);
            const vi j = load_bytes(k_above + ow, argmax_end - k_above - ow);
            const vr right_first = sent(g, k, 2) + sent(h, j, 8), right_second = sent(g, k, 5);
            const vr left_first = sent(g, k, 0) + sent(h, j, 6) + shift_in(carry_first, right_first);
            const vr left_second = sent(g, k, 3) + shift_in(carry_second, right_second);
            store_pairs(first + 2 * ow, left_first, sent(g, k, 1) + sent(h, j, 7), 2 * VL);
            store_pairs(second + 2 * ow, left_second, sent(g, k, 4), 2 * VL);
            carry_first = right_first, carry_second = right_second;
        }
        copy_unpadded(s, first, 2 * oh, dx);
        if (oh < s->OH) copy_unpadded(s, second, 2 * oh + 1, dx);
    }
    const idx covered = MIN(s->H, 2 * s->OH + 1 - s->top);
    memset(dx + covered * s->W, 0, sizeof(REAL) * (size_t)((s->H - covered) * s->W));
}

static void max_pool_any_backward(const struct pool_shape *s, const REAL *dy, const uint8_t *bytes, const int32_t *integers,
                                  REAL *dx) {
    memset(dx, 0, sizeof(REAL) * (size_t)(s->H * s->W));
    idx offset[256];
    for (idx k = 0; k < MIN(256, s->KH * s->KW); k++) offset[k] = k / s->KW * s->W + k % s->KW;
    for (idx oh = 0; oh < s->OH; oh++)
        for (idx ow = 0; ow < s->OW; ow++) {
            REAL *window = dx + (oh * s->SH - s->top) * s->W + ow * s->SW - s->left;
            idx o = oh * s->OW + ow;
            if (bytes) window[offset[bytes[o]]] += dy[o];
            else window[integers[o] / s->KW * s->W + integers[o] % s->KW] += dy[o];
        }
}

static int is_2x2(const struct pool_shape *s) {   /* stride 2, and no window is clipped */
    return s->KH == 2 && s->KW == 2 && s->SH == 2 && s->SW == 2
        && !s->top && !s->left && 2 * s->OH <= s->H && 2 * s->OW <= s->W;
}
static int is_3x3(const struct pool_shape *s) { return s->KH == 3 && s->KW == 3 && s->SH == 2 && s->SW == 2; }

static void max_pool_backward_planes(void *arg, idx begin, idx end, int worker) {
    const struct pool_call *c = arg;
    const struct pool_shape *s = c->s;
    const int bytes = s->KH * s->KW <= 256;
    for (idx i = begin; i < end; i++) {
        const idx out = i * s->OH * s->OW;
        const uint8_t *k = (const uint8_t *)c->argmax + out;
        REAL *dx = c->out + i * s->H * s->W;
        if (is_2x2(s)) max_pool_2x2_backward(s, c->dy + out, k, dx);
        else if (is_3x3(s)) max_pool_3x3_backward(s, c->dy + out, k, dx, c->scratch + worker * c->scratch_size);
        else max_pool_any_backward(s, c->dy + out, bytes ? k : NULL, (const int32_t *)c->argmax + out, dx);
    }
}

static int run_with_scratch(struct pool_call *c, range_body body) {
    const idx grain = grain_of(work_of_plane(c->s));
    if (c->scratch_size) {
        c->scratch = scratch_take(sizeof(REAL) * (size_t)c->scratch_size * (size_t)parallel_workers(c->s->planes, grain));
        if (!c->scratch) return CNN_NO_MEMORY;
    }
    parallel_for(c->s->planes, grain, body, c);
    scratch_give(c->scratch);
    return CNN_OK;
}

static int max_pool2d_backward(const struct pool_shape *s, const void *dy, const void *argmax, void *dx) {
    struct pool_call c = {.s = s, .dy = dy, .argmax = argmax, .out = dx};
    if (is_3x3(s)) c.scratch_size = max_pool_3x3_scratch(s);
    return run_with_scratch(&c, max_pool_backward_planes);
}

/* ---- sums over windows, of f(x): average pooling, Lp pooling ---- */

enum term { IDENTITY, MAGNITUDE, SQUARE, POWER };

static enum term term_of(double p) { return p == 1 ? MAGNITUDE : p == 2 ? SQUARE : POWER; }
INLINE vr power_of(vr x, double p) { return vexp((REAL)p * vlog(x)); }   /* x >= 0 */

INLINE vr term_vector(enum term f, vr x, double p) {
    return f == IDENTITY ? x : f == MAGNITUDE ? vabs(x) : f == SQUARE ? x * x : power_of(vabs(x), p);
}
INLINE REAL term_scalar(enum term f, REAL x, double p) {
    if (f == POWER) return term_vector(f, broadcast(x), p)[0];
    return f == IDENTITY ? x : f == MAGNITUDE ? (x < 0 ? -x : x) : x * x;
}

INLINE REAL sum_of_window(enum term f, double p, const struct pool_shape *s, const REAL *plane, idx oh, idx ow) {
    struct span rows = inside(oh, s->SH, s->top, s->KH, s->H), columns = inside(ow, s->SW, s->left, s->KW, s->W);
    const REAL *window = plane + (oh * s->SH - s->top) * s->W + ow * s->SW - s->left;
    REAL sum = 0;
    for (idx kh = rows.begin; kh < rows.end; kh++)
        for (idx kw = columns.begin; kw < columns.end; kw++) sum += term_scalar(f, window[kh * s->W + kw], p);
    return sum;
}

INLINE vr sum_block(enum term f, double power, idx KW, idx SW, struct span rows, const REAL *p, idx W, idx n, int full) {
    vr sum = {0};
    for (idx kh = rows.begin; kh < rows.end; kh++)
        for (idx kw = 0; kw < KW; kw += SW) {
            const REAL *q = p + kh * W + kw;
            if (SW == 1) {
                sum += term_vector(f, full ? load(q) : load_n(q, n), power);
                continue;
            }
            vr even, odd;
            load_pairs(q, kw + 1 < KW ? 2 * n : 2 * n - 1, full, &even, &odd);
            sum += term_vector(f, even, power);
            if (kw + 1 < KW) sum += term_vector(f, odd, power);
        }
    return sum;
}

INLINE void sum_row(enum term f, double power, idx KW, idx SW, struct span rows, const REAL *p, const REAL *end, idx W, idx n,
                    REAL *y) {
    const idx reach = (rows.end - 1) * W + (KW - 1) / SW * SW + SW * VL;
    for (; n > 0; n -= VL, p += SW * VL, y += VL)
        if (n >= VL && end - p >= reach) store(y, sum_block(f, power, KW, SW, rows, p, W, VL, 1));
        else store_n(y, sum_block(f, power, KW, SW, rows, p, W, MIN(n, VL), 0), MIN(n, VL));
}

INLINE REAL sum_of_run(enum term f, double p, const REAL *x, idx n) {   /* contiguous */
    vr s0 = {0}, s1 = {0};
    idx i = 0;
    for (; i + 2 * VL <= n; i += 2 * VL) s0 += term_vector(f, load(x + i), p), s1 += term_vector(f, load(x + i + VL), p);
    for (; i < n; i += VL) s0 += term_vector(f, load_lanes(x + i, n - i), p);   /* f(0) = 0 */
    return horizontal_sum(s0 + s1);
}

INLINE void window_sums(enum term f, const struct pool_call *c, const REAL *plane, REAL *y) {
    const struct pool_shape *s = c->s;
    if (s->OH == 1 && s->OW == 1 && !s->top && !s->left && s->KH == s->H && s->KW == s->W) {
        y[0] = sum_of_run(f, c->p, plane, s->H * s->W);
        return;
    }
    const struct span fast = s->SW <= 2 ? unclipped_columns(s) : (struct span){s->OW, s->OW};
    for (idx oh = 0; oh < s->OH; oh++, y += s->OW) {
        const struct span rows = inside(oh, s->SH, s->top, s->KH, s->H);
        for (idx ow = 0; ow < fast.begin; ow++) y[ow] = sum_of_window(f, c->p, s, plane, oh, ow);
        for (idx ow = fast.end; ow < s->OW; ow++) y[ow] = sum_of_window(f, c->p, s, plane, oh, ow);
        const idx n = fast.end - fast.begin;
        if (!n) continue;
        const REAL *p = plane + (oh * s->SH - s->top) * s->W + fast.begin * s->SW - s->left;
        if (is_2x2(s)) sum_row(f, c->p, 2, 2, (struct span){0, 2}, p, c->x_end, s->W, n, y + fast.begin);
        else if (s->SW == 2) sum_row(f, c->p, s->KW, 2, rows, p, c->x_end, s->W, n, y + fast.begin);
        else sum_row(f, c->p, s->KW, 1, rows, p, c->x_end, s->W, n, y + fast.begin);
    }
}

/* Each share goes to all the pixels of its window: the adjoint of the sum. */
static void spread(const struct pool_shape *s, const REAL *share, REAL *dx) {
    memset(dx, 0, sizeof(REAL) * (size_t)(s->H * s->W));
    const struct span fast = unclipped_columns(s);
    for (idx oh = 0; oh < s->OH; oh++, share += s->OW) {
        const struct span rows = inside(oh, s->SH, s->top, s->KH, s->H);
        for (idx kh = rows.begin; kh < rows.end; kh++) {
            REAL *row = dx + (oh * s->SH - s->top + kh) * s->W;
            for (idx ow = 0; ow < s->OW; ow++) {
                if (ow == fast.begin) ow = fast.end;
                if (ow == s->OW) break;
                const struct span columns = inside(ow, s->SW, s->left, s->KW, s->W);
                for (idx kw = columns.begin; kw < columns.end; kw++) row[ow * s->SW - s->left + kw] += share[ow];
            }
            row -= s->left;
            if (s->SW == 1)
                for (idx kw = 0; kw < s->KW; kw++)
                    for (idx ow = fast.begin; ow < fast.end; ow++) row[ow + kw] += share[ow];
            else
                for (idx ow = fast.begin; ow < fast.end; ow++)
                    for (idx kw = 0; kw < s->KW; kw++) row[ow * s->SW + kw] += share[ow];
        }
    }
}

/* ---- average pooling ---- */

/* out = in / (number of pixels in each window); in and out may be the same. */
static void divide_by_counts(const struct pool_call *c, const REAL *in, REAL *out) {
    const struct pool_shape *s = c->s;
    if (c->count_include_pad) {
        const REAL count = (REAL)(s->KH * s->KW);
        for (idx i = 0; i < s->OH * s->OW; i++) out[i] = in[i] / count;
        return;
    }
    for (idx oh = 0; oh < s->OH; oh++) {
        const struct span rows = inside(oh, s->SH, s->top, s->KH, s->H);
        for (idx ow = 0; ow < s->OW; ow++, in++, out++) {
            const struct span columns = inside(ow, s->SW, s->left, s->KW, s->W);
            *out = *in / (REAL)((rows.end - rows.begin) * (columns.end - columns.begin));
        }
    }
}

static void avg_pool_planes(void *arg, idx begin, idx end, int worker) {
    (void)worker;
    const struct pool_call *c = arg;
    const struct pool_shape *s = c->s;
    for (idx i = begin; i < end; i++) {
        REAL *y = c->out + i * s->OH * s->OW;
        window_sums(IDENTITY, c, c->x + i * s->H * s->W, y);
        divide_by_counts(c, y, y);
    }
}

static int avg_pool2d(const struct pool_shape *s, int count_include_pad, const void *x, void *y) {
    struct pool_call c = {.s = s, .x = x, .out = y, .count_include_pad = count_include_pad};
    c.x_end = c.x + s->planes * s->H * s->W;
    parallel_for(s->planes, grain_of(work_of_plane(s)), avg_pool_planes, &c);
    return CNN_OK;
}

static void avg_pool_2x2_backward(const struct pool_shape *s, const REAL *dy, REAL *dx) {
    for (idx oh = 0; oh < s->OH; oh++, dy += s->OW) {
        REAL *upper = dx + 2 * oh * s->W, *lower = upper + s->W;
        for (idx ow = 0; ow < s->OW; ow += VL) {
            idx n = MIN(VL, s->OW - ow);
            vr share = (n < VL ? load_n(dy + ow, n) : load(dy + ow)) * (REAL)0.25;
            store_pairs(upper + 2 * ow, share, share, 2 * n);
            store_pairs(lower + 2 * ow, share, share, 2 * n);
        }
        for (idx w = 2 * s->OW; w < s->W; w++) upper[w] = lower[w] = 0;
    }
    memset(dx + 2 * s->OH * s->W, 0, sizeof(REAL) * (size_t)((s->H - 2 * s->OH) * s->W));
}

static void avg_pool_backward_planes(void *arg, idx begin, idx end, int worker) {
    const struct pool_call *c = arg;
    const struct pool_shape *s = c->s;
    for (idx i = begin; i < end; i++) {
        const REAL *dy = c->dy + i * s->OH * s->OW;
        REAL *dx = c->out + i * s->H * s->W, *share = c->scratch + worker * c->scratch_size;
        if (is_2x2(s)) {
            avg_pool_2x2_backward(s, dy, dx);
            continue;
        }
        divide_by_counts(c, dy, share);
        spread(s, share, dx);
    }
}

static int avg_pool2d_backward(const struct pool_shape *s, int count_include_pad, const void *dy, void *dx) {
    struct pool_call c = {.s = s, .dy = dy, .out = dx, .count_include_pad = count_include_pad, .scratch_size = s->OH * s->OW};
    return run_with_scratch(&c, avg_pool_backward_planes);
}

/* ---- Lp pooling ---- */

static void lp_pool_planes(void *arg, idx begin, idx end, int worker) {
    (void)worker;
    const struct pool_call *c = arg;
    const struct pool_shape *s = c->s;
    const idx n = s->OH * s->OW;
    for (idx i = begin; i < end; i++) {
        const REAL *plane = c->x + i * s->H * s->W;
        REAL *y = c->out + i * n;
        switch (term_of(c->p)) {
        case MAGNITUDE: window_sums(MAGNITUDE, c, plane, y); break;
        case SQUARE: window_sums(SQUARE, c, plane, y); break;
        default: window_sums(POWER, c, plane, y);
        }
        if (c->p == 1) continue;
        for (idx j = 0; j < n; j += VL) {
            vr sum = load_n(y + j, MIN(VL, n - j));
            store_n(y + j, c->p == 2 ? vsqrt(sum) : power_of(sum, 1 / c->p), MIN(VL, n - j));
        }
    }
}

static int lp_pool2d(const struct pool_shape *s, double p, const void *x, void *y) {
    struct pool_call c = {.s = s, .x = x, .out = y, .p = p};
    c.x_end = c.x + s->planes * s->H * s->W;
    parallel_for(s->planes, grain_of(work_of_plane(s)), lp_pool_planes, &c);
    return CNN_OK;
}

/* dx = sign(x) |x|^(p-1) (sum over windows of dy y^(1-p)) */
static void lp_pool_backward_planes(void *arg, idx begin, idx end, int worker) {
    const struct pool_call *c = arg;
    const struct pool_shape *s = c->s;
    const idx n = s->OH * s->OW, m = s->H * s->W;
    const double e = c->p - 1;
    REAL *share = c->scratch + worker * c->scratch_size;
    for (idx i = begin; i < end; i++) {
        const REAL *dy = c->dy + i * n, *y = c->y + i * n, *x = c->x + i * m;
        REAL *dx = c->out + i * m;
        for (idx j = 0; j < n; j += VL) {
            idx lanes_left = MIN(VL, n - j);
            vr g = load_n(dy + j, lanes_left), norm = load_n(y + j, lanes_left);
            vr divisor = e == 0 ? broadcast(1) : e == 1 ? norm : power_of(norm, e);
            store_n(share + j, choose(norm == 0, (vr){0}, g / divisor), lanes_left);
        }
        spread(s, share, dx);
        for (idx j = 0; j < m; j += VL) {
            idx lanes_left = MIN(VL, m - j);
            vr v = load_n(x + j, lanes_left), sum = load_n(dx + j, lanes_left);
            vr factor = e == 1 ? v : copy_sign(e == 0 ? choose(v == 0, v, broadcast(1)) : power_of(vabs(v), e), v);
            store_n(dx + j, sum * choose(v == v, factor, v), lanes_left);
        }
    }
}

static int lp_pool2d_backward(const struct pool_shape *s, double p, const void *dy, const void *x, const void *y, void *dx) {
    struct pool_call c = {.s = s, .x = x, .y = y, .dy = dy, .out = dx, .p = p, .scratch_size = s->OH * s->OW};
    return run_with_scratch(&c, lp_pool_backward_planes);
}

static const struct pool_kernels pool_kernels = {
    .max_pool2d = max_pool2d,
    .max_pool2d_backward = max_pool2d_backward,
    .avg_pool2d = avg_pool2d,
    .avg_pool2d_backward = avg_pool2d_backward,
    .lp_pool2d = lp_pool2d,
    .lp_pool2d_backward = lp_pool2d_backward,
};
