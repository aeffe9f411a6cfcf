/* Matrix products: C = A B, after Goto and van de Geijn. A block of B is packed into strips NR columns wide, a block of A into
   panels of at most MR rows, and a micro-kernel keeps an MR x NR tile of C in registers for KC steps.

   Every element of C is one chain of multiply-adds over k, cut at the same places whatever the tile or thread that it
   falls into; in products of few rows, a chain per lane. So results do not depend on how the work is split. */

#if VECTOR_BYTES == 64
#define MR 14   /* 28 of 32 registers accumulate */
#elif defined(__aarch64__)
#define MR 12
#else
#define MR 6    /* 12 of 16 */
#endif
#define NV 2
#define NR (NV * VL)
#define KC ((idx)(2048 / sizeof(REAL)))   /* a panel of A fits into L1 */
#define MC 168                            /* a block of A into a third of L2 */
#define NC 2048                           /* a block of B into L3 */
enum { PAGE = 4096 / sizeof(REAL) };      /* reals */
enum { GROUP = 8, ROWS_AHEAD = 4 };       /* strips packed together, into L2; rows of B that are on their way meanwhile */
enum { K_TOGETHER = 4 };                  /* of columns of A, packed together */
enum { K_AHEAD = 16, COLUMNS_AHEAD = 8 }; /* steps of k that are on their way while one is multiplied */

/* ---- micro-kernel ---- */

/* Rows that are asked for in the course of a tile, one every `pace` steps of k: all at once would hold up a and b. */
struct wanted { const REAL *first; idx stride, count; };
INLINE idx pace_of(idx K, idx count) {
    idx pace = 2;
    while (K / 2 / pace >= count) pace *= 2;
    return pace;
}
/* A strip of B that comes after the tile: one of its rows every `pace` steps of k. By reference: a copy would wait for what it is
   made from to be stored. */
struct after { const REAL *row; idx step, pace; };
static const struct after nothing = {NULL, 0, 0}, *const nothing_after = &nothing;
enum { LINES = NR > LINE ? NR / LINE : 1 };   /* of a row of a strip */

enum { PAST_CACHES = 2 };   /* in place of `accumulate`: C is not read, and passes the caches by */

/* C (m x NR, row stride ldc) = A times strip b, plus C itself, a bias per row or nothing. A is a panel (m values per k) or lies
   where it was: if in_rows, rows lda apart; else columns, if lda is not 0. Per k two vectors of b, `gap` apart, or only one of
   them, lie ldb after those of the last k or, when there are offsets, at offset[k]. m is a constant where this is inlined, so x
   lives in registers. `strip`, if not NULL, becomes what was read of b. */
INLINE void micro_kernel(const int m, const int vectors, const int in_rows, idx K, const REAL *restrict a, idx lda,
                         const REAL *restrict b, idx ldb, const idx *restrict offset, idx gap, REAL *restrict strip,
                         struct wanted wanted, const struct after *after, REAL *restrict c, idx ldc, const REAL *bias,
                         int accumulate) {
    vr x[MR][NV];
    const idx ahead = ldb == NR ? K_AHEAD * NR : 0;   /* rows of B itself are followed by the hardware */
    const REAL *restrict a5 = a + 5 * lda, *restrict a10 = a5 + 5 * lda;
    const idx lda3 = 3 * lda;   /* an address is a pointer and 0, 1, 2 or 4 times a register: here of five rows each */
    const idx step = in_rows ? 1 : lda ? lda : m;
    const REAL *soon = after->row;
    const idx pace = soon ? after->pace : pace_of(K, wanted.count);
#pragma GCC unroll 16
    for (int i = 0; i < m; i++) x[i][0] = x[i][1] = bias ? broadcast(bias[i]) : (vr){0};
    for (idx k = 0, next = 0; k < K; k++, a += step, a5++, a10++) {
        const REAL *bk = offset ? b + offset[k] : b + k * ldb;
        if (k == next) {
            next += pace;
            if (!soon || wanted.count-- > 0) {
                __builtin_prefetch(wanted.first, 1);
                __builtin_prefetch(wanted.first + vectors * VL - 1, 1);
                wanted.first += wanted.stride;
            }
            if (soon && !strip) {
                for (int l = 0; l < LINES; l++) __builtin_prefetch(soon + l * LINE, 0, 2);   /* into L2: L1 is full of b */
                soon += after->step;
            }
        }
        if (!in_rows && lda) {   /* a line or two, which the hardware does not follow */
            __builtin_prefetch(a + COLUMNS_AHEAD * lda);
            __builtin_prefetch(a + COLUMNS_AHEAD * lda + m - 1);
        }
        const vr b0 = load(bk), b1 = vectors > 1 ? load(bk + gap) : b0;
        if (strip) {
            const REAL *later = bk + ROWS_AHEAD * ldb;
            __builtin_prefetch(soon);
            __builtin_prefetch(soon + LINE);
            soon += after->step;
            __builtin_prefetch(later);   /* when its turn comes, it may be in L2 again */
            __builtin_prefetch(later + NR - 1);
            store(strip + k * NR, b0);
            store(strip + k * NR + VL, b1);
        } else if (!offset) {
            const REAL *later = bk + ahead;   /* a strip may come from beyond L2; one pointer: registers are few */
            __builtin_prefetch(later);
            __builtin_prefetch(later + vectors * VL - 1);
        }
#pragma GCC unroll 16
        for (int i = 0; i < m; i++) {
            const REAL *row = (i < 5 ? a : i < 10 ? a5 : a10) + (i % 5 == 3 ? lda3 : i % 5 * lda);
            const vr ai = broadcast(in_rows ? *row : a[i]);
            x[i][0] += ai * b0;
            if (vectors > 1) x[i][1] += ai * b1;
        }
    }
#pragma GCC unroll 16
    for (int i = 0; i < m; i++, c += ldc) {
        if (accumulate == PAST_CACHES) {
            store_past_caches(c, x[i][0]);
            if (vectors > 1) store_past_caches(c + VL, x[i][1]);
            continue;
        }
        store(c, accumulate ? load(c) + x[i][0] : x[i][0]);
        if (vectors > 1) store(c + VL, accumulate ? load(c + VL) + x[i][1] : x[i][1]);
    }
}

#define HEIGHT(m) \
    static void micro_kernel_##m(idx K, const REAL *a, const REAL *b, idx ldb, const idx *offset, idx gap, REAL *c, idx ldc, \
                                 const REAL *bias, int accumulate) { \
        const struct wanted rows = {c, ldc, m}, none = {a, 0, 1}; \
        if (offset) micro_kernel(m, 2, 0, K, a, 0, b, 0, offset, gap, NULL, rows, nothing_after, c, ldc, bias, accumulate); \
        else if (accumulate == PAST_CACHES) \
            micro_kernel(m, 2, 0, K, a, 0, b, ldb, NULL, VL, NULL, none, nothing_after, c, ldc, NULL, PAST_CACHES); \
        else micro_kernel(m, 2, 0, K, a, 0, b, ldb, NULL, VL, NULL, rows, nothing_after, c, ldc, bias, accumulate); \
    } \
    static void narrow_kernel_##m(idx K, const REAL *a, const REAL *b, idx ldb, const idx *offset, idx gap, REAL *c, idx ldc, \
                                  const REAL *bias, int accumulate) { \
        const struct wanted rows = {c, ldc, m}; \
        if (offset) micro_kernel(m, 1, 0, K, a, 0, b, 0, offset, gap, NULL, rows, nothing_after, c, ldc, bias, accumulate); \
        else micro_kernel(m, 1, 0, K, a, 0, b, ldb, NULL, VL, NULL, rows, nothing_after, c, ldc, bias, accumulate); \
    } \
    static void packing_kernel_##m(idx in_rows, idx K, const REAL *a, idx lda, const REAL *b, idx ldb, REAL *strip, \
                                   const struct after *after, REAL *c, idx ldc, const REAL *bias, int accumulate) { \
        const struct wanted rows = {c, ldc, m}; \
        if (in_rows && strip) micro_kernel(m, 2, 1, K, a, lda, b, ldb, NULL, VL, strip, rows, after, c, ldc, bias, accumulate); \
        else if (in_rows) micro_kernel(m, 2, 1, K, a, lda, b, ldb, NULL, VL, NULL, rows, after, c, ldc, bias, accumulate); \
        else if (lda && strip) micro_kernel(m, 2, 0, K, a, lda, b, ldb, NULL, VL, strip, rows, after, c, ldc, bias, accumulate); \
        else if (lda) micro_kernel(m, 2, 0, K, a, lda, b, ldb, NULL, VL, NULL, rows, after, c, ldc, bias, accumulate); \
        else if (strip) micro_kernel(m, 2, 0, K, a, 0, b, ldb, NULL, VL, strip, rows, after, c, ldc, bias, accumulate); \
        else micro_kernel(m, 2, 0, K, a, 0, b, ldb, NULL, VL, NULL, rows, after, c, ldc, bias, accumulate); \
    } \
    static void in_place_kernel_##m(idx in_rows, int narrow, idx K, const REAL *a, idx lda, const REAL *b, idx ldb, REAL *c, \
                                    idx ldc, const REAL *bias, int accumulate) { \
        const struct wanted rows = {c, ldc, m}; \
        const struct after *after = nothing_after; \
        if (in_rows && narrow) micro_kernel(m, 1, 1, K, a, lda, b, ldb, NULL, VL, NULL, rows, after, c, ldc, bias, accumulate); \
        else if (in_rows) micro_kernel(m, 2, 1, K, a, lda, b, ldb, NULL, VL, NULL, rows, after, c, ldc, bias, accumulate); \
        else if (narrow) micro_kernel(m, 1, 0, K, a, lda, b, ldb, NULL, VL, NULL, rows, after, c, ldc, bias, accumulate); \
        else micro_kernel(m, 2, 0, K, a, lda, b, ldb, NULL, VL, NULL, rows, after, c, ldc, bias, accumulate); \
    }

/* One for each height of a panel, and tables of them. */
#if MR == 14
#define FOR_HEIGHTS(f) f(1) f(2) f(3) f(4) f(5) f(6) f(7) f(8) f(9) f(10) f(11) f(12) f(13) f(14)
#elif MR == 12
#define FOR_HEIGHTS(f) f(1) f(2) f(3) f(4) f(5) f(6) f(7) f(8) f(9) f(10) f(11) f(12)
#else
#define FOR_HEIGHTS(f) f(1) f(2) f(3) f(4) f(5) f(6)
#endif
FOR_HEIGHTS(HEIGHT)

typedef void (*micro_kernel_function)(idx, const REAL *, const REAL *, idx, const idx *, idx, REAL *, idx, const REAL *, int);
#define MICRO_KERNEL(m) micro_kernel_##m,
static const micro_kernel_function micro_kernels[] = {NULL, FOR_HEIGHTS(MICRO_KERNEL)};
#define NARROW_KERNEL(m) narrow_kernel_##m,
static const micro_kernel_function narrow_kernels[] = {NULL, FOR_HEIGHTS(NARROW_KERNEL)};

typedef void (*packing_kernel_function)(idx, idx, const REAL *, idx, const REAL *, idx, REAL *, const struct after *, REAL *,
                                        idx, const REAL *, int);
#define PACKING_KERNEL(m) packing_kernel_##m,
static const packing_kernel_function packing_kernels[] = {NULL, FOR_HEIGHTS(PACKING_KERNEL)};

typedef void (*in_place_kernel_function)(idx, int, idx, const REAL *, idx, const REAL *, idx, REAL *, idx, const REAL *, int);
#define IN_PLACE_KERNEL(m) in_place_kernel_##m,
static const in_place_kernel_function in_place_kernels[] = {NULL, FOR_HEIGHTS(IN_PLACE_KERNEL)};

static void spread_tile(const REAL *t, idx m, idx n, REAL *c, idx crs, idx ccs, int accumulate) {
    for (idx i = 0; i < m; i++)
        if (ccs == 1)
            for (idx j = 0; j < n; j += VL) {
                REAL *p = c + i * crs + j;
                vr v = load(t + i * NR + j);
                store_part(p, accumulate ? load_part(p, n - j) + v : v, n - j);
            }
        else
            for (idx j = 0; j < n; j++) {
                REAL *p = c + i * crs + j * ccs;
                *p = accumulate ? *p + t[i * NR + j] : t[i * NR + j];
            }
}

/* The micro-kernel for any n <= NR and any strides of C: what does not fit takes the way over a small tile. */
INLINE void tile(idx m, idx n, idx K, const REAL *a, const REAL *b, idx ldb, const idx *offset, idx gap, REAL *c, idx crs,
                 idx ccs, const REAL *bias, int accumulate) {
    const micro_kernel_function kernel = (n <= VL ? narrow_kernels : micro_kernels)[m];
    if (n % VL == 0 && ccs == 1) {
        kernel(K, a, b, ldb, offset, gap, c, crs, bias, accumulate);
        return;
    }
    REAL t[MR * NR] __attribute__((aligned(64)));
    kernel(K, a, b, ldb, offset, gap, t, NR, bias, 0);
    spread_tile(t, m, n, c, crs, ccs, accumulate);
}

/* The same with rows or columns of A where they are. */
static void tile_in_place(idx m, idx n, idx in_rows, idx K, const REAL *a, idx lda, const REAL *b, idx ldb, REAL *c, idx crs,
                          idx ccs, const REAL *bias, int accumulate) {
    if (n % VL == 0 && ccs == 1) {
        in_place_kernels[m](in_rows, n <= VL, K, a, lda, b, ldb, c, crs, bias, accumulate);
        return;
    }
    REAL t[MR * NR] __attribute__((aligned(64)));
    in_place_kernels[m](in_rows, n <= VL, K, a, lda, b, ldb, t, NR, bias, 0);
    spread_tile(t, m, n, c, crs, ccs, accumulate);
}

/* ---- packing ---- */

INLINE void copy_reals(REAL *d, const REAL *s, idx n) {
    idx i = 0;
    for (; i + VL <= n; i += VL) store(d + i, load(s + i));
    if (i < n) store_n(d + i, load_n(s + i, n - i), n - i);
}

typedef REAL v4 __attribute__((vector_size(4 * sizeof(REAL)), aligned(sizeof(REAL)), may_alias));

INLINE void transpose_4x4(const REAL *s, idx lds, REAL *d, idx ldd) {
    v4 a = *(const v4 *)s, b = *(const v4 *)(s + lds), c = *(const v4 *)(s + 2 * lds), e = *(const v4 *)(s + 3 * lds);
    v4 ab0 = __builtin_shufflevector(a, b, 0, 4, 1, 5), ab1 = __builtin_shufflevector(a, b, 2, 6, 3, 7);
    v4 ce0 = __builtin_shufflevector(c, e, 0, 4, 1, 5), ce1 = __builtin_shufflevector(c, e, 2, 6, 3, 7);
    *(v4 *)d = __builtin_shufflevector(ab0, ce0, 0, 1, 4, 5);
    *(v4 *)(d + ldd) = __builtin_shufflevector(ab0, ce0, 2, 3, 6, 7);
    *(v4 *)(d + 2 * ldd) = __builtin_shufflevector(ab1, ce1, 0, 1, 4, 5);
    *(v4 *)(d + 3 * ldd) = __builtin_shufflevector(ab1, ce1, 2, 3, 6, 7);
}

/* VL steps of k for w <= VL rows. */
INLINE void transpose_block(idx w, const REAL *s, idx lds, REAL *d, idx ldd) {
    vr v[LANES_IN_VECTOR];
#pragma GCC unroll 16
    for (idx i = 0; i < VL; i++) v[i] = i < w ? load(s + i * lds) : (vr){0};
    transpose(v);
#pragma GCC unroll 16
    for (idx k = 0; k < VL; k++) store_part(d + k * ldd, v[k], w);
}

/* d[k * ldd + i] = s[i * is + k * ks] for i < w, k < K */
static void pack(idx w, idx K, const REAL *s, idx is, idx ks, REAL *d, idx ldd) {
    if (is == 1) {
        for (idx k = 0; k < K; k++) copy_reals(d + k * ldd, s + k * ks, w);
        return;
    }
    if (ks == 1 && w >= 4) {
        idx done = VL > 4 ? K / VL * VL : 0;
        for (idx next = 0; next < w && done; next += VL) {
            idx i = MAX(0, MIN(next, w - VL));   /* the last rows once more rather than fewer */
            for (idx k = 0; k < done; k += VL) transpose_block(MIN(VL, w), s + i * is + k, is, d + k * ldd + i, ldd);
        }
        for (idx next = 0; next < w; next += 4) {
            idx i = MIN(next, w - 4), k = done;
            for (; k + 4 <= K; k += 4) transpose_4x4(s + i * is + k, is, d + k * ldd + i, ldd);
            for (; k < K; k++)
                for (idx j = i; j < i + 4; j++) d[k * ldd + j] = s[j * is + k];
        }
        return;
    }
    for (idx k = 0; k < K; k++)
        for (idx i = 0; i < w; i++) d[k * ldd + i] = s[i * is + k * ks];
}

/* The last panel must not be a sliver: ceil(M / MR) panels of almost equal height. */
static idx panel_height(idx M) { return MAX(1, (M + (M + MR - 1) / MR - 1) / MAX(1, (M + MR - 1) / MR)); }

/* Side by side, as strips are; some k of each panel at a time, as panels may lie whole pages apart. */
static void pack_panels_of_columns(idx M, idx K, const REAL *a, idx cs, idx height, REAL *d) {
    for (idx k0 = 0; k0 < K; k0 += K_TOGETHER, a += K_TOGETHER * cs)
        for (idx i = 0; i < M; i += height) {
            idx m = MIN(height, M - i);
            REAL *panel = d + i * K + k0 * m;
            for (idx k = 0; k < MIN(K_TOGETHER, K - k0); k++, panel += m) {
                const REAL *row = a + k * cs + i;
                __builtin_prefetch(row + K_TOGETHER * cs);
                copy_reals(panel, row, m);
            }
        }
}

static void pack_panels(idx M, idx K, const REAL *a, idx rs, idx cs, idx height, REAL *d) {
    if (rs == 1) {
        pack_panels_of_columns(M, K, a, cs, height, d);
        return;
    }
    for (idx i = 0; i < M; i += height) pack(MIN(height, M - i), K, a + i * rs, rs, cs, d + i * K, MIN(height, M - i));
}

/* Strips side by side: memory likes to be read in long pieces, and a row may well be on a page of its own. */
static void pack_whole_strips(idx K, idx strips, const REAL *b, idx rs, REAL *d) {
    for (idx k = 0; k < K; k++, b += rs, d += NR) {
        for (idx i = 0; i <= strips * NR; i += 64 / (idx)sizeof(REAL)) __builtin_prefetch(b + ROWS_AHEAD * rs + i);
        for (idx j = 0; j < strips; j++) {
            store(d + j * K * NR, load(b + j * NR));
            store(d + j * K * NR + VL, load(b + j * NR + VL));
        }
    }
}

static void pack_strips(idx K, idx N, const REAL *b, idx rs, idx cs, REAL *d) {
    idx j = 0;
    for (idx strips; cs == 1 && (strips = MIN(GROUP, (N - j) / NR)) > 0; j += strips * NR)
        pack_whole_strips(K, strips, b + j, rs, d + j * K);
    for (; j < N; j += NR) {
        idx n = MIN(NR, N - j);
        if (n < NR) memset(d + j * K, 0, sizeof(REAL) * NR * K);
        pack(n, K, b + j * cs, cs, rs, d + j * K, NR);
    }
}

/* ---- the product ---- */

struct product {
    idx M, N, K;
    const REAL *a; idx ars, acs;   /* A(i, k) = a[i * ars + k * acs], and so on */
    const REAL *b; idx brs, bcs;
    REAL *c;       idx crs, ccs;
    const REAL *bias; idx bias_rs, bias_cs;   /* C starts from it, or NULL */
    int whole;     /* the last columns go with the others: see multiply_last_columns */
    int by_rows;   /* threads share out the rows, not the columns */
    idx height;    /* of a panel of A */
    REAL *scratch;
};

static struct product transposed(const struct product *p) {
    return (struct product){p->N, p->M, p->K, p->b, p->bcs, p->brs, p->a, p->acs, p->ars, p->c, p->ccs, p->crs,
                            p->bias, p->bias_cs, p->bias_rs, p->whole, p->by_rows, p->height, p->scratch};
}

static idx ceil_div(idx a, idx b) { return (a + b - 1) / b; }
static idx block_of(idx n, idx limit) {   /* the size of equal blocks of at most limit */
    idx blocks = ceil_div(n, limit);
    return blocks ? ceil_div(n, blocks) : 1;
}
static idx round_up(idx n, idx unit) { return ceil_div(n, unit) * unit; }

/* Few rows and much of B, which comes from beyond L2: what counts is that it comes without pause. Then k goes by so few rows of
   B at a time that the hardware's prefetching follows all of them, from their begin to their end. */
enum { THIN = 128, FEW_PANELS = 2, FAR = (1 << 20) / sizeof(REAL) };
static int is_thin(const struct product *p) {
    return p->M <= THIN && p->bcs == 1 && p->ccs == 1 && p->N * p->K > (idx)FAR;
}
static idx depth_of(const struct product *p) {
    return block_of(p->K, !is_thin(p) ? KC : p->M <= FEW_PANELS * MR ? 32 : 64);
}

/* With one panel of rows, each strip of B is read once: packing it would only cost. */
static int reads_b_in_place(const struct product *p) { return p->M <= MR && p->bcs == 1; }
/* Else the first panel that meets a strip packs it. But rows of B whole pages apart, too many for the ways of L2, would push each
   other out of it before the next strip needs them. */
static int packs_on_the_way(const struct product *p) {
    const int stays = p->brs % PAGE || depth_of(p) * p->brs <= (idx)FAR;
    return p->M > MR && p->bcs == 1 && p->ccs == 1 && (is_thin(p) || (NR >= LINE && stays));
}

/* Short sums, and a C beyond L2, which takes most of the time: it is written row by row, a panel at a time, as then all strips
   stay in L2. One beyond all caches passes them by, so that no line of it has to be read first. */
enum { SHORT = 32, VAST = (32 << 20) / sizeof(REAL) };
static int is_outer(const struct product *p) { return p->K <= SHORT && p->ccs == 1 && p->M * p->N >= (idx)FAR; }
static int passes_caches(const struct product *p) {
    return is_outer(p) && !p->bias && p->K && p->M * p->N >= (idx)VAST && p->crs % LINE == 0 && (uintptr_t)p->c % 64 == 0;
}

/* Rows of A need not be turned into panels: 4 to 10 % of a product of middling size. But at a distance of whole pages they all
   are in one set of L1, and where K goes by in short pieces, the begin of each piece would be waited for. Nor do columns (2 to 4 %)
   that lie in L2 and meet few strips, where a tile is high: each of its steps asks for their lines. */
enum { LONG = 64, FEW_COLUMNS = 512 };
static int reads_a_in_place(const struct product *p) {
    if (p->acs == 1) return p->ars % PAGE && depth_of(p) > LONG;
    return MR > 6 && p->ars == 1 && p->acs % PAGE && p->N <= FEW_COLUMNS && p->M * p->K <= 2 * (idx)FAR && !is_outer(p);
}

/* Rows of a block of A: more of them where K is short; blocks of equal size, as the strips are fetched anew for each. */
static idx rows_at_once(const struct product *p) {
    idx height = p->height;
    if (is_outer(p)) return height;
    return block_of(ceil_div(p->M, height), MAX(1, MC * KC / block_of(p->K, KC) / height)) * height;
}
static idx panel_reals(const struct product *p) { return round_up(MIN(p->M, rows_at_once(p)) * depth_of(p), 16); }
static idx product_reals(const struct product *p) {   /* scratch of one worker */
    idx strips = reads_b_in_place(p) ? NR : round_up(MIN(p->N, NC), NR);
    return panel_reals(p) + strips * depth_of(p);
}

static REAL bias_at(const struct product *p, idx i, idx j) {
    return p->bias ? p->bias[i * p->bias_rs + j * p->bias_cs] : 0;
}

static void start_from_bias(const struct product *p, idx m0, idx m1, idx n0, idx n1) {
    for (idx i = m0; i < m1; i++)
        if (p->ccs == 1 && p->bias && p->bias_cs == 1)
            copy_reals(p->c + i * p->crs + n0, p->bias + i * p->bias_rs + n0, n1 - n0);
        else
            for (idx j = n0; j < n1; j++) p->c[i * p->crs + j * p->ccs] = bias_at(p, i, j);
}

/* The strip after the one at hand, from row k of B on. The line that each row begins in is here already. */
static struct after strip_after(const struct product *p, const REAL *b, idx k, idx pace) {
    return (struct after){b + k * p->brs + NR + MIN(LINE, NR) - 1, p->brs, pace};
}

/* mc x nc of C. The first rows that meet the strips find them still to be packed: each on the way through its first panel, or a
   group when its turn comes. `once`: they are also the last ones, so that a group is all there is. What will be packed on the way
   next is asked for by the panels after the first one, where there are any: that one would wait for memory. They share it evenly:
   many lines at once would hold up their products, too. Over the last strips, the panels ask for the rows of A that come after. */
static void multiply_blocks(const struct product *p, idx mc, idx nc, idx kc, const REAL *a, REAL *strips, int first,
                            int once, const REAL *b, REAL *c, const REAL *bias, int accumulate, struct wanted rows_after) {
    const idx height = p->height, lda = reads_a_in_place(p) ? p->acs == 1 ? p->ars : p->acs : 0;
    const idx in_rows = lda && p->acs == 1, step = lda ? p->ars : kc;
    idx askers = mc > height;   /* none, or a power of two */
    while (askers && mc > 2 * askers * height && 2 * askers <= pace_of(kc, height)) askers *= 2;
    const idx row_pace = MIN(pace_of(kc, height), LINES * LINE), late = nc - ceil_div(rows_after.count, ceil_div(mc, height)) * NR;
    idx group = !once ? NC : reads_b_in_place(p) || packs_on_the_way(p) ? NR : GROUP * NR;
    for (idx j = 0; j < nc; j += NR) {
        idx n = MIN(NR, nc - j), at = j % group, done = 0, asked = askers;
        int in_place = reads_b_in_place(p) && n == NR, past_caches = passes_caches(p) && n == NR;
        if (first && packs_on_the_way(p) && n == NR && !past_caches) {
            const struct after after = askers ? (struct after){a, 0, pace_of(kc, height)} : strip_after(p, b + j, 0, 1);
            done = MIN(height, mc), asked = 0;
            packing_kernels[done](in_rows, kc, a, lda, b + j, p->brs, strips + at * kc, &after, c + j, p->crs, bias, accumulate);
        } else if (first && !in_place && (!at || (packs_on_the_way(p) && !past_caches))) {
            pack_strips(kc, MIN(group - at, nc - j), b + j * p->bcs, p->brs, p->bcs, strips + at * kc);
        }
        const REAL *strip = in_place ? b + j : strips + at * kc;
        idx ldb = in_place ? p->brs : NR;
        for (idx i = done; i < mc; i += height) {
            const REAL *rows = a + i * step, *start = bias ? bias + i : NULL;
            REAL *d = c + i * p->crs + j * p->ccs;
            idx m = MIN(height, mc - i);
            if (past_caches) micro_kernels[m](kc, rows, strip, ldb, NULL, VL, d, p->crs, NULL, PAST_CACHES);
            else if (asked < askers) {
                const struct after after = strip_after(p, b + j, asked++ * ceil_div(kc, askers), askers);
                packing_kernels[m](in_rows, kc, rows, lda, strip, NR, NULL, &after, d, p->crs, start, accumulate);
            } else if (j >= late && n == NR && rows_after.count-- > 0) {
                const struct after after = {rows_after.first, row_pace, row_pace};
                packing_kernels[m](in_rows, kc, rows, lda, strip, ldb, NULL, &after, d, p->crs, start, accumulate);
                rows_after.first += rows_after.stride;
            } else if (lda) tile_in_place(m, n, in_rows, kc, rows, lda, strip, ldb, d, p->crs, p->ccs, start, accumulate);
            else tile(m, n, kc, rows, strip, ldb, NULL, VL, d, p->crs, p->ccs, start, accumulate);
        }
    }
}

/* C[m0:m1, n0:n1] on one thread. */
static void multiply_range(const struct product *p, idx m0, idx m1, idx n0, idx n1, REAL *scratch) {
    int per_row = p->bias && p->bias_rs == 1 && p->bias_cs == 0, started = (p->bias && !per_row) || !p->K;
    if (started) start_from_bias(p, m0, m1, n0, n1);
    idx height = p->height, mc0 = rows_at_once(p), kc0 = depth_of(p);
    REAL *panels = scratch, *strips = scratch + panel_reals(p);
    idx nc0 = is_thin(p) ? n1 - n0 : NC;
    int once = m1 - m0 <= mc0;
    for (idx jc = n0; jc < n1; jc += nc0)
        for (idx pc = 0; pc < p->K; pc += kc0) {
            idx nc = MIN(nc0, n1 - jc), kc = MIN(kc0, p->K - pc);
            const REAL *b = p->b + pc * p->brs + jc * p->bcs;
            for (idx ic = m0; ic < m1; ic += mc0) {
                idx mc = MIN(mc0, m1 - ic);
                const REAL *a = p->a + ic * p->ars + pc * p->acs;
                const idx m_after = ic + mc < m1 ? ic + mc : m0, k_after = ic + mc < m1 ? pc : pc + kc;
                const int asks = mc > height && p->acs == 1 && p->ccs == 1 && k_after < p->K;
                const struct wanted rows_after = {p->a + m_after * p->ars + k_after, p->ars, asks ? MIN(mc0, m1 - m_after) : 0};
                if (!reads_a_in_place(p)) pack_panels(mc, kc, a, p->ars, p->acs, height, panels), a = panels;
                multiply_blocks(p, mc, nc, kc, a, strips, ic == m0, once, b, p->c + ic * p->crs + jc * p->ccs,
                                per_row && !pc ? p->bias + ic : NULL, started || pc > 0, rows_after);
            }
        }
    if (passes_caches(p)) wait_for_stores();
}

#include "gemm_few_rows.c"

/* ---- threads ---- */

/* What all threads need, each fetches for itself. So rows or columns are split, whichever costs the longest share less, in
   multiply-adds: what lies the other way round costs several times what lies in order does, and what is far away more. */
enum { IN_ORDER = 4, TURNED = 16, FAR_AWAY = 32 };
static idx cost_of_fetching(idx reals, int in_order) { return reals > (idx)FAR / 2 ? FAR_AWAY : in_order ? IN_ORDER : TURNED; }
static int splits_rows(const struct product *p) {
    const idx threads = cnn_get_num_threads(), rows = ceil_div(p->M, threads), columns = round_up(ceil_div(p->N, threads), NR);
    const idx a = cost_of_fetching(p->M * p->K, p->ars == 1), b = cost_of_fetching(p->N * p->K, p->bcs == 1);
    return !needs_no_packing(p) && rows * (p->N + a) + p->N * b < columns * (p->M + b) + p->M * a;
}

static void multiply_part(void *arg, idx begin, idx end, int worker) {
    const struct product *p = arg;
    if (needs_no_packing(p)) {
        multiply_unpacked(p, begin * NR, MIN(p->N, end * NR));
        return;
    }
    REAL *scratch = p->scratch + worker * product_reals(p);
    idx unit = p->by_rows ? p->height : NR;
    if (p->by_rows) multiply_range(p, begin * unit, MIN(p->M, end * unit), 0, p->N, scratch);
    else multiply_range(p, 0, p->M, begin * unit, MIN(p->N, end * unit), scratch);
}

/* A narrow C would leave most of each vector empty: then its rows become the vector axis. */
static struct product well_oriented(const struct product *p) {
    return p->N < NR && p->N < p->M ? transposed(p) : *p;
}

static int multiply(struct product given) {
    struct product p = well_oriented(&given);
    if (!p.M || !p.N) return CNN_OK;
    if (multiply_last_columns(&p) != CNN_OK) return CNN_NO_MEMORY;
    p.by_rows = splits_rows(&p), p.height = panel_height(p.by_rows ? ceil_div(p.M, cnn_get_num_threads()) : p.M);
    idx unit = p.by_rows ? p.height : NR, items = ceil_div(p.by_rows ? p.M : p.N, unit);
    idx grain = grain_of(0.1 * (double)p.M * (double)p.N * (double)p.K / (double)items);
    if (!needs_no_packing(&p)) {
        p.scratch = scratch_take(sizeof(REAL) * (size_t)product_reals(&p) * (size_t)parallel_workers(items, grain));
        if (!p.scratch) return CNN_NO_MEMORY;
    }
    parallel_for(items, grain, multiply_part, &p);
    scratch_give(p.scratch);
    return CNN_OK;
}

/* Many small products: whole products per thread. */
struct batch { struct product first; idx stride_a, stride_b, stride_c; };

static void multiply_some(void *arg, idx begin, idx end, int worker) {
    const struct batch *batch = arg;
    REAL *scratch = batch->first.scratch + worker * product_reals(&batch->first);
    for (idx n = begin; n < end; n++) {
        struct product p = batch->first;
        p.a += n * batch->stride_a, p.b += n * batch->stride_b, p.c += n * batch->stride_c;
        if (needs_no_packing(&p)) multiply_unpacked(&p, 0, p.N);
        else multiply_range(&p, 0, p.M, 0, p.N, scratch);
    }
}

static int multiply_batch(struct batch batch, idx n) {
    struct product *p = &batch.first;
    if (!p->M || !p->N) return CNN_OK;
    idx grain = grain_of(0.1 * (double)p->M * (double)p->N * (double)p->K);
    p->height = panel_height(p->M);
    p->scratch = scratch_take(sizeof(REAL) * (size_t)product_reals(p) * (size_t)parallel_workers(n, grain));
    if (!p->scratch) return CNN_NO_MEMORY;
    parallel_for(n, grain, multiply_some, &batch);
    scratch_give(p->scratch);
    return CNN_OK;
}

/* ---- kernels ---- */

static int gemm(idx batch, idx M, idx N, idx K, const void *a, int transpose_a, const void *b, int transpose_b, void *c) {
    struct product p = {.M = M, .N = N, .K = K, .a = a, .b = b, .c = c, .crs = N, .ccs = 1};
    p.ars = transpose_a ? 1 : K, p.acs = transpose_a ? M : 1;
    p.brs = transpose_b ? 1 : N, p.bcs = transpose_b ? K : 1;
    if (batch <= 1) return batch ? multiply(p) : CNN_OK;
    struct product oriented = well_oriented(&p);
    int swapped = oriented.M != M;
    return multiply_batch((struct batch){oriented, swapped ? K * N : M * K, swapped ? M * K : K * N, M * N}, batch);
}

static int linear_forward(idx R, idx I, idx O, const void *x, const void *w, const void *b, void *y) {
    return multiply((struct product){.M = R, .N = O, .K = I, .a = x, .ars = I, .acs = 1, .b = w, .brs = 1, .bcs = I,
                                     .c = y, .crs = O, .ccs = 1, .bias = b, .bias_rs = 0, .bias_cs = 1});
}

static int linear_backward_input(idx R, idx I, idx O, const void *dy, const void *w, void *dx) {
    return multiply((struct product){.M = R, .N = I, .K = O, .a = dy, .ars = O, .acs = 1, .b = w, .brs = I, .bcs = 1,
                                     .c = dx, .crs = I, .ccs = 1});
}

static int linear_backward_weight(idx R, idx I, idx O, const void *dy, const void *x, void *dw) {
    return multiply((struct product){.M = O, .N = I, .K = R, .a = dy, .ars = 1, .acs = O, .b = x, .brs = I, .bcs = 1,
                                     .c = dw, .crs = I, .ccs = 1});
}

/* db[o] = sum over rows of dy. Threads split columns; memory likes rows, some at a time; sums of sums round less. */
struct column_sum { idx R, O; const REAL *dy; REAL *db; };
enum { ROWS_AT_ONCE = 8, MOST_SUMS = 512 };

static void column_sum(void *arg, idx begin, idx end, int worker) {
    (void)worker;
    const struct column_sum *p = arg;
    const idx first = begin * VL, last = MIN(p->O, end * VL), rows = MAX(ROWS_AT_ONCE, p->R / MOST_SUMS);
    memset(p->db + first, 0, sizeof(REAL) * (size_t)(last - first));
    for (idx r = 0; r < p->R; r += rows)
        for (idx o = first; o < last; o += VL) {
            vr sum = {0};
            for (idx row = r; row < MIN(p->R, r + rows); row++) sum += load_part(p->dy + row * p->O + o, last - o);
            store_part(p->db + o, load_part(p->db + o, last - o) + sum, last - o);
        }
}

static int linear_backward_bias(idx R, idx O, const void *dy, void *db) {
    struct column_sum p = {R, O, dy, db};
    parallel_for((O + VL - 1) / VL, grain_of((double)R), column_sum, &p);
    return CNN_OK;
}

static const struct linear_kernels linear_kernels = {
    .gemm = gemm,
    .linear_forward = linear_forward,
    .linear_backward_input = linear_backward_input,
    .linear_backward_weight = linear_backward_weight,
    .linear_backward_bias = linear_backward_bias,
};
