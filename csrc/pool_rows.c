/* Pooling with vectors along a row, without scratch: windows of 2 x 2 side by side, windows of 3 x 3 with a stride of 2,
   averages of whole planes. Part of pool.c.

   A range of planes works on its own copy of the call. A vector may be stored anywhere, for all the compiler knows, so that after
   each it would read the original anew, and compute all places from it. */

static int is_2x2(const struct pool_shape *s) {   /* and none is clipped */
    return s->KH == 2 && s->KW == 2 && s->SH == 2 && s->SW == 2 && !s->top && !s->left && 2 * s->OH <= s->H
        && 2 * s->OW <= s->W;
}
static int is_wide_2x2(const struct pool_shape *s) { return is_2x2(s) && s->OW >= VL; }
static int is_narrow_2x2(const struct pool_shape *s) { return is_2x2(s) && s->OW < VL && s->OW > VL / 4; }

/* The last vector of a row ends where the row ends: what it has in common with the one before is done twice. */
#define FOR_VECTORS_OF_ROW(i, n) for (idx i = 0, last_ = (n) - VL; i <= last_; i = i == last_ ? (n) : MIN(i + VL, last_))

struct pairs { vr even, odd; };
INLINE struct pairs pairs_of(vr a, vr b) { return (struct pairs){SHUFFLE(a, b, EVEN_LANES), SHUFFLE(a, b, ODD_LANES)}; }
/* The same where in_order() mends the order of the lanes later. */
INLINE struct pairs deal(vr a, vr b) { return (struct pairs){SHUFFLE(a, b, DEALT), SHUFFLE(a, b, DEALT_ODD)}; }

/* Most vectors of 64 bytes straddle two lines of the cache: a row begins anywhere. */
INLINE vr load_once(const REAL *p) {
    vr v = load(p);
    if (VECTOR_BYTES == 64) hold(v);
    return v;
}
INLINE struct pairs load_pairs(const REAL *p) { return pairs_of(load_once(p), load_once(p + VL)); }
INLINE struct pairs load_pairs_part(const REAL *p, idx n) {   /* of the first n elements, the others 0 */
    return pairs_of(load_part(p, n), n > VL ? load_part(p + VL, n - VL) : (vr){0});
}
INLINE void store_pairs(REAL *p, vr even, vr odd) {
    store(p, SHUFFLE(even, odd, ZIP_LOW)), store(p + VL, SHUFFLE(even, odd, ZIP_HIGH));
}
INLINE void store_pairs_part(REAL *p, struct pairs v, idx n) {   /* the first n > 0 elements */
    if (n >= 2 * VL) store_pairs(p, v.even, v.odd);
    else {
        store_part(p, SHUFFLE(v.even, v.odd, ZIP_LOW), n);
        if (n > VL) store_n(p + VL, SHUFFLE(v.even, v.odd, ZIP_HIGH), n - VL);
    }
}
static void clear_uncovered(const struct pool_shape *s, REAL *dx) {   /* the odd column at the right, the odd row below */
    for (idx h = 0; h < 2 * s->OH; h++)
        for (idx w = 2 * s->OW; w < s->W; w++) dx[h * s->W + w] = 0;
    memset(dx + 2 * s->OH * s->W, 0, sizeof(REAL) * (size_t)((s->H - 2 * s->OH) * s->W));
}

/* As much as two vectors of pairs: the hardware loses track where two rows are read or written side by side. */
INLINE void prefetch_pairs(const REAL *p) {
#pragma GCC unroll 4
    for (idx line = 0; line < 4 * VECTOR_BYTES; line += 64) __builtin_prefetch((const char *)p + READ_AHEAD + line);
}

INLINE vr max_of_pairs(struct pairs upper, struct pairs lower, vi *winner) {
    vr best = upper.even;
    *winner = (vi){0};
    keep_larger(upper.odd, 1, &best, winner);
    keep_larger(lower.even, 2, &best, winner);
    keep_larger(lower.odd, 3, &best, winner);
    return best;
}
static void max_pool_2x2_planes(void *arg, idx begin, idx end, int worker) {
    (void)worker;
    const struct pool_call call = *(const struct pool_call *)arg, *c = &call;
    const struct pool_shape *s = &c->s;
    for (idx i = begin; i < end; i++)
        for (idx oh = 0; oh < s->OH; oh++) {
            const REAL *x = c->x + (i * s->H + 2 * oh) * s->W;
            const idx out = (i * s->OH + oh) * s->OW;
            FOR_VECTORS_OF_ROW(ow, s->OW) {
                vi winner;
                prefetch_pairs(x + 4 * ow);
                store(c->result + out + ow, max_of_pairs(load_pairs(x + 2 * ow), load_pairs(x + s->W + 2 * ow), &winner));
                store_bytes(c->argmax + out + ow, winner, VL);
            }
        }
}

/* A row of less than VL outputs: `pixels` of each row of x may be read, `outputs` written. */
INLINE void max_pool_narrow_row(const struct pool_call *c, const REAL *x, idx out, idx pixels, idx outputs) {
    vi winner;
    const vr best = max_of_pairs(load_pairs_part(x, pixels), load_pairs_part(x + c->s.W, pixels), &winner);
    store_part(c->result + out, best, outputs);
    store_bytes(c->argmax + out, winner, outputs);
}
/* Two rows of at most VL / 2 outputs; a whole vector may be written for each. */
#define HIGH_HALF(i) (LANES_IN_VECTOR / 2 + (i) % (LANES_IN_VECTOR / 2))
INLINE void max_pool_narrow_rows(const struct pool_call *c, const REAL *x, idx out) {
    const idx W = c->s.W, next = out + c->s.OW;
    vi winner;
    const vr best = max_of_pairs(pairs_of(load_once(x), load_once(x + 2 * W)),
                                 pairs_of(load_once(x + W), load_once(x + 3 * W)), &winner);
    store(c->result + out, best), store_bytes(c->argmax + out, winner, VL);
    store(c->result + next, SHUFFLE(best, best, HIGH_HALF));
    store_bytes(c->argmax + next, SHUFFLE(winner, winner, HIGH_HALF), VL);
}
/* Vectors are written past their row, as the next row is written later, but not past the range. */
static void max_pool_2x2_narrow_planes(void *arg, idx begin, idx end, int worker) {
    (void)worker;
    const struct pool_call call = *(const struct pool_call *)arg, *c = &call;
    const struct pool_shape *s = &c->s;
    const idx W = s->W, OW = s->OW, stored = s->planes * plane_size(s), room = end * output_size(s);
    for (idx i = begin; i < end; i++) {
        idx at = i * plane_size(s), out = i * output_size(s), oh = 0;
        for (; 2 * OW <= VL && oh + 1 < s->OH && at + 3 * W + VL <= stored && out + OW + VL <= room; oh += 2) {
            max_pool_narrow_rows(c, c->x + at, out);
            at += 4 * W, out += 2 * OW;
        }
        for (; oh < s->OH; oh++, at += 2 * W, out += OW)
            if (at + W + 2 * VL <= stored && out + VL <= room) max_pool_narrow_row(c, c->x + at, out, 2 * VL, VL);
            else max_pool_narrow_row(c, c->x + at, out, 2 * OW, OW);
    }
}
static void max_pool_2x2_backward_planes(void *arg, idx begin, idx end, int worker) {
    (void)worker;
    const struct pool_call call = *(const struct pool_call *)arg, *c = &call;
    const struct pool_shape *s = &c->s;
    for (idx i = begin; i < end; i++) {
        clear_uncovered(s, c->result + i * plane_size(s));
        for (idx oh = 0; oh < s->OH; oh++) {
            REAL *dx = c->result + (i * s->H + 2 * oh) * s->W;
            const idx out = (i * s->OH + oh) * s->OW;
            FOR_VECTORS_OF_ROW(ow, s->OW) {
                const vi dy = (vi)load(c->dy + out + ow), winner = load_bytes(c->argmax + out + ow, VL);
                prefetch_pairs(dx + 4 * ow);
                store_pairs(dx + 2 * ow, (vr)(dy & (winner == 0)), (vr)(dy & (winner == 1)));
                store_pairs(dx + s->W + 2 * ow, (vr)(dy & (winner == 2)), (vr)(dy & (winner == 3)));
            }
        }
    }
}
/* As forward: vectors are written past their row, as the next row is written later, but not past the range. */
static void max_pool_2x2_backward_narrow_planes(void *arg, idx begin, idx end, int worker) {
    (void)worker;
    const struct pool_call call = *(const struct pool_call *)arg, *c = &call;
    const struct pool_shape *s = &c->s;
    for (idx i = begin; i < end; i++) {
        for (idx oh = 0; oh < s->OH; oh++) {
            const idx at = (i * s->H + 2 * oh) * s->W, out = (i * s->OH + oh) * s->OW;
            const idx stored = s->planes * output_size(s) - out, room = end * plane_size(s) - at - s->W;
            const idx n = room >= 2 * VL ? 2 * VL : 2 * s->OW;
            const vi dy = (vi)load_part(c->dy + out, stored), winner = load_bytes(c->argmax + out, stored);
            prefetch_pairs(c->result + at);
            store_pairs_part(c->result + at, (struct pairs){(vr)(dy & (winner == 0)), (vr)(dy & (winner == 1))}, n);
            store_pairs_part(c->result + at + s->W, (struct pairs){(vr)(dy & (winner == 2)), (vr)(dy & (winner == 3))}, n);
        }
        clear_uncovered(s, c->result + i * plane_size(s));
    }
}
static void avg_pool_2x2_planes(void *arg, idx begin, idx end, int worker) {
    (void)worker;
    const struct pool_call call = *(const struct pool_call *)arg, *c = &call;
    const struct pool_shape *s = &c->s;
    for (idx i = begin; i < end; i++)
        for (idx oh = 0; oh < s->OH; oh++) {
            const REAL *x = c->x + (i * s->H + 2 * oh) * s->W;
            FOR_VECTORS_OF_ROW(ow, s->OW) {
                const struct pairs upper = load_pairs(x + 2 * ow), lower = load_pairs(x + s->W + 2 * ow);
                prefetch_pairs(x + 4 * ow);
                store(c->result + (i * s->OH + oh) * s->OW + ow, (upper.even + upper.odd + lower.even + lower.odd) / 4);
            }
        }
}
static void avg_pool_2x2_backward_planes(void *arg, idx begin, idx end, int worker) {
    (void)worker;
    const struct pool_call call = *(const struct pool_call *)arg, *c = &call;
    const struct pool_shape *s = &c->s;
    for (idx i = begin; i < end; i++) {
        clear_uncovered(s, c->result + i * plane_size(s));
        for (idx oh = 0; oh < s->OH; oh++) {
            REAL *dx = c->result + (i * s->H + 2 * oh) * s->W;
            FOR_VECTORS_OF_ROW(ow, s->OW) {
                const vr share = load(c->dy + (i * s->OH + oh) * s->OW + ow) / 4;
                prefetch_pairs(dx + 4 * ow);
                store_pairs(dx + 2 * ow, share, share), store_pairs(dx + s->W + 2 * ow, share, share);
            }
        }
    }
}

enum { STRIPS = FOR_REAL(4, 2), STRIPS_BYTES = 12544 };   /* in a row of a large plane, at most; of the rows that strips go down */

/* Windows of 3 x 3 with a stride of 2, which padding clips at the top and at the left only, if at all. */
static int is_3x3(const struct pool_shape *s) {
    return s->KH == 3 && s->KW == 3 && s->SH == 2 && s->SW == 2 && s->top <= 1 && s->left <= 1
        && 2 * s->OH + 1 - s->top <= s->H && 2 * s->OW + 1 - s->left <= s->W;
}
static int is_3x3_of_strips(const struct pool_shape *s) {
    return is_3x3(s) && s->OW > VL / 2 && (s->OW <= STRIPS * VL || plane_size(s) * (idx)sizeof(REAL) <= STRIPS_BYTES);
}
/* A row fits into a vector. */
static int is_short_3x3(const struct pool_shape *s) { return is_3x3(s) && s->OW <= VL / 2 && s->OW > VL / 4; }
/* Of one row of VL windows side by side: the largest element, its column, and a sum that is 0 where nothing is NaN or infinite. */
struct row_max { vr best, zero; vi column; };

/* Of the columns of the windows, the first is padding in the lanes of `clipped`. A careful look finds a NaN. */
INLINE struct row_max max_of_columns(vr left, vr middle, vr right, vi clipped, vr zero, const int careful) {
    struct row_max row = {choose(clipped, broadcast(-INFINITY), left), zero, -clipped};
    if (careful) keep_larger(middle, 1, &row.best, &row.column), keep_larger(right, 2, &row.best, &row.column);
    else keep_greater(middle, 1, &row.best, &row.column), keep_greater(right, 2, &row.best, &row.column);
    return row;
}
/* The first window begins at x, and its column 0 is padding if `clipped`. */
INLINE struct row_max max_of_row(const REAL *x, int clipped, const int careful) {
    const vr a = load_once(x), b = load_once(x + VL), c = load_once(x + 2 + VL), right = deal(load(x + 2), c).even;
    const struct pairs v = deal(a, b);
    return max_of_columns(v.even, v.odd, right, clipped ? first_lanes(1) : (vi){0}, a * 0 + b * 0 + c * 0, careful);
}
/* The same of two rows in the halves of a vector, which they fill if `full`: then the last column is beyond it. */
#define PAIRS_TO_THE_RIGHT(i) (EVEN_LANES((i) + 1) % (2 * LANES_IN_VECTOR))
INLINE struct row_max max_of_two_rows(const REAL *x, const REAL *y, vi clipped, const int full) {
    const vr a = load_once(x), b = load_once(y);
    const struct pairs v = pairs_of(a, b);
    vr right = SHUFFLE(a, b, PAIRS_TO_THE_RIGHT), zero = a * 0 + b * 0;
    if (full) right = pairs_of(load(x + 2), load(y + 2)).even, zero += right * 0;
    return max_of_columns(v.even, v.odd, right, clipped, zero, 0);
}
INLINE vr max_of_rows(struct row_max upper, struct row_max middle, struct row_max lower, const int careful, vi *winner) {
    vr best = upper.best;
    *winner = upper.column;
    if (careful) {
        keep_larger_of(middle.best, middle.column + 3, &best, winner);
        keep_larger_of(lower.best, lower.column + 6, &best, winner);
    } else {
        keep_greater_of(middle.best, middle.column + 3, &best, winner);
        keep_greater_of(lower.best, lower.column + 6, &best, winner);
    }
    return best;
}
/* n windows side by side, one by one. Of each, `rows` are padding; of the first, `columns`. */
static void max_pool_3x3_singly(const struct pool_call *c, idx at, idx out, idx n, idx rows, idx columns) {
    const idx W = c->s.W;
    for (idx o = 0; o < n; o++, columns = 0) {
        const REAL *x = c->x + at + 2 * o;
        REAL best = x[rows * W + columns];
        idx winner = 3 * rows + columns;
        for (idx kh = rows; kh < 3; kh++)
            for (idx kw = columns; kw < 3; kw++) {
                const REAL v = x[kh * W + kw];
                if (!(v <= best) && best == best) best = v, winner = 3 * kh + kw;
            }
        c->result[out + o] = best, c->argmax[out + o] = (uint8_t)winner;
    }
}
INLINE void ask_for_strip(const REAL *x) { __builtin_prefetch(x), __builtin_prefetch(x + VL); }

/* VL columns of outputs, from column ow on, downwards: the last row of one window is the first row of the next. At the ends of
   the arrays, windows are looked at one by one. False where it takes a careful look. */
INLINE int max_pool_3x3_strip(const struct pool_call *c, idx plane, struct span rows, idx ow, idx end, const int clipped,
                              const int careful) {
    const struct pool_shape *s = &c->s;
    const idx W = s->W, n = MIN(VL, s->OW - ow);
    const idx last_at = s->planes * plane_size(s) - 2 * W - 2 * VL - 2, last_out = end * output_size(s) - VL;
    idx at = (plane * s->H + 2 * rows.begin - s->top) * W + 2 * ow - s->left, out = (plane * s->OH + rows.begin) * s->OW + ow;
    idx oh = rows.begin, padding = oh ? 0 : s->top;
    if (at + padding * W < 0) {
        max_pool_3x3_singly(c, at, out, n, padding, clipped);
        oh++, at += 2 * W, out += s->OW, padding = 0;
    }
    const idx below = rows.end < s->OH ? 2 * (rows.end - rows.begin) * W : 0;   /* from a row to that of the next strip */
    struct row_max upper = {{0}, {0}, {0}};
    if (at <= last_at) upper = max_of_row(c->x + at + padding * W, clipped, careful);
    if (padding) upper.column += 3;   /* the next row in its place: a row of padding never wins */
    vr zero = upper.zero;
    for (; oh < rows.end && at <= last_at && out <= last_out; oh++, at += 2 * W, out += s->OW, padding = 0) {
        const REAL *x = c->x + at;
        if (below) ask_for_strip(x + W + below), ask_for_strip(x + 2 * W + below);
        const struct row_max middle = max_of_row(x + W, clipped, careful), lower = max_of_row(x + 2 * W, clipped, careful);
        vi winner;
        const vr best = max_of_rows(upper, middle, lower, careful, &winner);
        zero += middle.zero + lower.zero;
        store(c->result + out, in_order(best));
        store_bytes(c->argmax + out, (vi)in_order((vr)winner), VL);
        upper = lower;
    }
    for (; oh < rows.end; oh++, at += 2 * W, out += s->OW, padding = 0)
        max_pool_3x3_singly(c, at, out, n, padding, clipped);
    return !any(zero != zero);
}
static void max_pool_3x3_strip_carefully(const struct pool_call *c, idx plane, struct span rows, idx ow, idx end, int clipped) {
    max_pool_3x3_strip(c, plane, rows, ow, end, clipped, 1);
}
/* Vectors are written past the end of a row: so the strips go from the right, where the next row begins, to the left; down as
   many rows as the first-level cache holds. */
static void max_pool_3x3_planes(void *arg, idx begin, idx end, int worker) {
    (void)worker;
    const struct pool_call call = *(const struct pool_call *)arg, *c = &call;
    const struct pool_shape *s = &c->s;
    const idx most = MAX(1, STRIPS_BYTES / (2 * s->W * (idx)sizeof(REAL)));
    for (idx i = begin; i < end; i++)
        for (idx oh = 0; oh < s->OH; oh += most) {
            const struct span rows = {oh, MIN(s->OH, oh + most)};
            for (idx ow = (s->OW - 1) / VL * VL; ow >= 0; ow -= VL) {
                const int clipped = s->left && !ow;
                const int done = clipped ? max_pool_3x3_strip(c, i, rows, ow, end, 1, 0)
                                         : max_pool_3x3_strip(c, i, rows, ow, end, 0, 0);
                if (!done) max_pool_3x3_strip_carefully(arg, i, rows, ow, end, clipped);
            }
        }
}
/* Where a row fits into a vector, two rows of windows at a time, in its halves: their first rows together, their second, their
   third. The third row of the upper windows is the first one of the lower windows. */
#define HIGH_THEN_LOW(i) ((i) + LANES_IN_VECTOR / 2)
INLINE int max_pool_3x3_short_plane(const struct pool_call *c, idx plane, const int full) {
    const struct pool_shape *s = &c->s;
    const idx W = s->W;
    const vi clipped = (lane_numbers() & (integer)(VL / 2 - 1)) < ((integer)s->left - (vi){0});
    const REAL *x = c->x + (plane * s->H - s->top) * W - s->left;
    idx out = plane * output_size(s);
    struct row_max upper = max_of_two_rows(x + s->top * W, x + 2 * W, clipped, full);
    if (s->top) upper.column -= 3 * first_lanes(VL / 2);
    vr zero = upper.zero;
    for (idx oh = 0; oh < s->OH; oh += 2, x += 4 * W, out += 2 * s->OW) {
        const struct row_max middle = max_of_two_rows(x + W, x + 3 * W, clipped, full);
        const struct row_max next = max_of_two_rows(x + 4 * W, x + 6 * W, clipped, full);
        const struct row_max lower = {SHUFFLE(upper.best, next.best, HIGH_THEN_LOW), {0},
                                      SHUFFLE(upper.column, next.column, HIGH_THEN_LOW)};
        vi winner;
        const vr best = max_of_rows(upper, middle, lower, 0, &winner);
        zero += middle.zero + next.zero;
        store(c->result + out, best), store_bytes(c->argmax + out, winner, VL);
        if (oh + 1 < s->OH) {
            store(c->result + out + s->OW, SHUFFLE(best, best, HIGH_HALF));
            store_bytes(c->argmax + out + s->OW, SHUFFLE(winner, winner, HIGH_HALF), VL);
        }
        upper = next;
    }
    return !any(zero != zero);
}
static void max_pool_3x3_short_planes(void *arg, idx begin, idx end, int worker) {
    (void)worker;
    const struct pool_call call = *(const struct pool_call *)arg, *c = &call;
    const struct pool_shape *s = &c->s;
    const idx read = (s->OH + 1) / 2 * 4 + 2 - s->top;   /* the last row of x that is looked at */
    for (idx i = begin; i < end; i++) {
        const int inner = (i || !s->left) && (i * s->H + read) * s->W + VL + 2 - s->left <= s->planes * plane_size(s)
            && (end - i) * output_size(s) >= output_size(s) - s->OW + VL;
        const int full = s->OW == VL / 2;
        if (inner && (full ? max_pool_3x3_short_plane(c, i, 1) : max_pool_3x3_short_plane(c, i, 0))) continue;
        max_pool_3x3_strip_carefully(arg, i, (struct span){0, s->OH}, 0, end, s->left > 0);
    }
}
/* Windows of 3 x 3 with a stride of 2. Window row oh covers, with its rows 0 and 1, two rows of the padded image; the first of
   them is the last one of window row oh - 1 too. Likewise, from column 1 - left on, pairs of columns: below the middle of a
   window, and between it and the next one. */
struct line { vr dy, next_dy; vi winner, next_winner; };   /* of VL windows, and of the one to the right of each */

/* `n` windows are left in the row, `stored` in the whole array. */
INLINE struct line load_line(const REAL *dy, const uint8_t *argmax, idx n, idx stored) {
    return (struct line){load_part(dy, MAX(n, 0)), load_part(dy + 1, MAX(n - 1, 0)),
                         load_bytes(argmax, stored), load_bytes(argmax + 1, stored - 1)};
}
INLINE vr sent(vr dy, vi winner, integer number) { return (vr)((vi)dy & (winner == number)); }
/* `first` numbers the first element of the windows in this row. */
INLINE struct pairs sent_by(struct line line, integer first) {
    return (struct pairs){sent(line.dy, line.winner, first + 1),
                          sent(line.dy, line.winner, first + 2) + sent(line.next_dy, line.next_winner, first)};
}
INLINE struct pairs add_line(struct pairs sum, struct line line, integer first) {   /* in the order of the windows */
    sum.even += sent(line.dy, line.winner, first + 1);
    sum.odd = sum.odd + sent(line.dy, line.winner, first + 2) + sent(line.next_dy, line.next_winner, first);
    return sum;
}

enum { ROW_VECTORS = 64 };   /* of pairs in a row, at most */
static int is_wide_3x3(const struct pool_shape *s) {
    return s->KH == 3 && s->KW == 3 && s->SH == 2 && s->SW == 2 && s->left <= 1 && s->OW > VL / 2 && s->W <= 2 * ROW_VECTORS * VL;
}

INLINE REAL sent_by_one(const struct pool_call *c, idx out, int number) { return c->argmax[out] == number ? c->dy[out] : 0; }

INLINE idx vectors_of_pairs(const struct pool_shape *s) { return (s->W - 1 + s->left + 2 * VL - 1) / (2 * VL); }

/* inner: vectors may be read from any window, and written past the end of a row, if from right to left. That pays for the few
   vectors of short rows. */
INLINE void max_pool_3x3_backward_plane(const struct pool_call *c, idx plane, const int inner, const idx few) {
    const struct pool_shape *s = &c->s;
    const idx all = s->planes * output_size(s), covered = MAX(0, MIN(s->H, 2 * s->OH + 1 - s->top));
    REAL *dx = c->result + plane * plane_size(s);
    /* What the last windows send to the row that they share with the next ones; the second is that of the column in front of
       the pairs, which is there without padding. */
    struct pairs below[ROW_VECTORS];
    REAL front_below = 0;
    const idx vectors = few ? few : vectors_of_pairs(s);
    for (idx k = 0; k < vectors; k++) below[k] = (struct pairs){{0}, {0}};
    for (idx oh = 0; oh <= s->OH; oh++) {
        const idx h = 2 * oh - s->top, out = plane * output_size(s) + oh * s->OW;
        REAL *upper = h >= 0 && h < s->H ? dx + h * s->W : NULL;
        REAL *lower = h + 1 >= 0 && h + 1 < covered ? dx + (h + 1) * s->W : NULL;
        const int used = oh < s->OH;
        for (idx n = 0; n < vectors; n++) {
            const idx k = few ? vectors - 1 - n : n, ow = k * VL, w = 2 * ow + 1 - s->left, columns = few ? 2 * VL : s->W - w;
            struct pairs of_upper = below[k], of_lower = {{0}, {0}};
            if (used) {
                const idx stored = inner ? VL + 1 : all - out - ow;
                const struct line line = load_line(c->dy + out + ow, c->argmax + out + ow, s->OW - ow, stored);
                of_upper = add_line(of_upper, line, 0), of_lower = sent_by(line, 3), below[k] = sent_by(line, 6);
            }
            if (upper) store_pairs_part(upper + w, of_upper, columns);
            if (lower) store_pairs_part(lower + w, of_lower, columns);
        }
        if (s->left) continue;
        if (upper) upper[0] = front_below + (used ? sent_by_one(c, out, 0) : 0);
        if (lower) lower[0] = used ? sent_by_one(c, out, 3) : 0;
        if (used) front_below = sent_by_one(c, out, 6);
    }
    memset(dx + covered * s->W, 0, sizeof(REAL) * (size_t)((s->H - covered) * s->W));
}
static void max_pool_3x3_backward_planes(void *arg, idx begin, idx end, int worker) {
    (void)worker;
    const struct pool_call call = *(const struct pool_call *)arg, *c = &call;
    const struct pool_shape *s = &c->s;
    const idx read = (s->OW + 3 * VL + output_size(s)) / output_size(s), written = (2 * VL + plane_size(s)) / plane_size(s);
    const idx inner = MIN(end - written, s->planes - read), vectors = vectors_of_pairs(s);
    for (idx i = begin; i < end; i++)
        if (i >= inner) max_pool_3x3_backward_plane(c, i, 0, 0);
        else if (vectors == 1) max_pool_3x3_backward_plane(c, i, 1, 1);
        else if (vectors == 2) max_pool_3x3_backward_plane(c, i, 1, 2);
        else max_pool_3x3_backward_plane(c, i, 1, 0);
}

/* The same where a row of dx is at most a vector. Lane i takes from the window whose column 0 or 1 it is in, and from the one
   to the left of that, whose column 2 it may be; where there is no such window, from a lane that is 0. */
#define OWN_0(i) ((i) / 2)
#define OWN_1(i) (((i) + 1) / 2)
#define TO_THE_LEFT_0(i) ((OWN_0(i) + LANES_IN_VECTOR - 1) % LANES_IN_VECTOR)
#define TO_THE_LEFT_1(i) ((OWN_1(i) + LANES_IN_VECTOR - 1) % LANES_IN_VECTOR)
struct taken { vr own, other; vi own_winner, other_winner; };   /* by the lanes of a row of dx */

INLINE struct taken take(vr dy, vi winner, const int left) {
    return left ? (struct taken){SHUFFLE(dy, dy, OWN_1), SHUFFLE(dy, dy, TO_THE_LEFT_1),
                                 SHUFFLE(winner, winner, OWN_1), SHUFFLE(winner, winner, TO_THE_LEFT_1)}
                : (struct taken){SHUFFLE(dy, dy, OWN_0), SHUFFLE(dy, dy, TO_THE_LEFT_0),
                                 SHUFFLE(winner, winner, OWN_0), SHUFFLE(winner, winner, TO_THE_LEFT_0)};
}
/* `first` numbers the first element of the windows in this row. */
INLINE vr add_taken(vr sum, struct taken t, integer first, const int left) {
    const vi column = (lane_numbers() + left) & 1;   /* in the own window */
    const vi in_other = first + 2 - 16 * column;     /* there is none for column 1 */
    sum += (vr)((vi)t.other & (t.other_winner == in_other));
    return sum + (vr)((vi)t.own & (t.own_winner == first + column));
}

static int is_narrow_3x3(const struct pool_shape *s) {   /* with less lanes, a vector cut short costs a loop */
    return VL >= 8 && s->KH == 3 && s->KW == 3 && s->SH == 2 && s->SW == 2 && s->left <= 1 && s->OW <= VL / 2 && s->W <= VL
        && 2 * s->W > VL;
}
/* inner: a vector may be read from any window, and written past any row, as the next row is written later. */
INLINE void max_pool_3x3_backward_narrow_plane(const struct pool_call *c, idx plane, const int left, const int inner) {
    const struct pool_shape *s = &c->s;
    REAL *dx = c->result + plane * plane_size(s);
    const idx n = inner ? VL : s->W, all = s->planes * output_size(s);
    vr below = {0};   /* what the last windows send to the row that they share with the next ones */
    for (idx oh = 0, h = -s->top; h < s->H; oh++, h += 2) {
        vr upper = below, lower = {0};
        below = lower;
        if (oh < s->OH) {
            const idx out = plane * output_size(s) + oh * s->OW;
            const struct taken t = take(load_n(c->dy + out, s->OW), load_bytes(c->argmax + out, inner ? VL : all - out), left);
            upper = add_taken(upper, t, 0, left), lower = add_taken(lower, t, 3, left), below = add_taken(below, t, 6, left);
        }
        if (h >= 0) store_part(dx + h * s->W, upper, n);
        if (h + 1 >= 0 && h + 1 < s->H) store_part(dx + (h + 1) * s->W, lower, n);
    }
}
static void max_pool_3x3_backward_narrow_planes(void *arg, idx begin, idx end, int worker) {
    (void)worker;
    const struct pool_call call = *(const struct pool_call *)arg, *c = &call;
    const struct pool_shape *s = &c->s;
    const idx read = (VL + output_size(s) - 1) / output_size(s), written = (VL + plane_size(s) - 1) / plane_size(s);
    const idx inner = MIN(end - written, s->planes - read);
    for (idx i = begin; i < end; i++)
        if (i >= inner) max_pool_3x3_backward_narrow_plane(c, i, s->left > 0, 0);
        else if (s->left) max_pool_3x3_backward_narrow_plane(c, i, 1, 1);
        else max_pool_3x3_backward_narrow_plane(c, i, 0, 1);
}

static int is_global(const struct pool_shape *s) {   /* one window, the whole plane */
    return s->OH == 1 && s->OW == 1 && s->KH == s->H && s->KW == s->W && !s->top && !s->left;
}
INLINE vr sum_of(const REAL *x, idx n) {   /* its lanes' sum is the sum of x */
    vr a = {0}, b = {0};
    idx i = 0;
    for (; i + 2 * VL <= n; i += 2 * VL) {
        prefetch_ahead(x + i);
        if (LINE <= VL) prefetch_ahead(x + i + VL);   /* else it is the same line */
        a += load(x + i), b += load(x + i + VL);
    }
    for (; i < n; i += VL) prefetch_ahead(x + i), a += load_part(x + i, n - i);
    return a + b;
}
static void avg_pool_global_planes(void *arg, idx begin, idx end, int worker) {
    (void)worker;
    const struct pool_call call = *(const struct pool_call *)arg, *c = &call;
    const idx n = plane_size(&c->s);
    vr sums[LANES_IN_VECTOR] = {{0}};   /* of the last planes some may be none's: not stored */
    for (idx plane = begin, planes; plane < end; plane += planes) {
        planes = MIN(VL, end - plane);
        for (idx i = 0; i < planes; i++) sums[i] = sum_of(c->x + (plane + i) * n, n);
        store_part(c->result + plane, horizontal_sums(sums) / (REAL)n, planes);
    }
}

static int run_on_planes(struct pool_call *c, const struct pool_shape *s, range_body planes) {
    c->s = *s;
    parallel_for(s->planes, grain_of(2.0 * (double)plane_size(s)), planes, c);
    return CNN_OK;
}
