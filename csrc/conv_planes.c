/* The micro-kernel of 1x1 convolutions: its single numbers come from planes, or rows of weights, where they lie, and it asks
   for what memory should bring meanwhile. Part of conv.c. */

enum { STRIP_BYTES = 512 << 10 };    /* of a block of pixels: its strips stay in L2 */
enum { PACKED = VL > 4 ? VL : 4 };   /* channels transposed or gathered together */

/* What comes next: of some planes a little per pixel, while memory has nothing else to do. */
struct soon { const REAL *from; idx plane, planes; const idx *pixel; };

/* sums (m x vectors, row stride ld) = bias or += the products of m planes with a strip. Every third plane has an address of its
   own, the next two are one and two planes away, which an instruction adds for nothing. */
INLINE void plane_products(const int m, const int vectors, idx pixels, const REAL *restrict planes, idx plane,
                           const idx *restrict pixel, const REAL *restrict strip, REAL *restrict sums, idx ld, const REAL *bias,
                           int accumulate, const struct soon *soon) {
    vr sum[MR][NV];
#pragma GCC unroll 16
    for (int i = 0; i < m; i++) sum[i][0] = sum[i][1] = bias ? broadcast(bias[i]) : (vr){0};
    const REAL *row = sums, *last = sums + (m - 1) * ld;
    for (idx p = 0; p < pixels; row += row < last ? ld : 0) {
        const REAL *next = soon->from + soon->pixel[p];
        __builtin_prefetch(row, 1);
        __builtin_prefetch(row + VL, 1);
        for (idx end = MIN(pixels, p + soon->planes); p < end; p++, next += soon->plane, strip += vectors * VL) {
            const REAL *from = planes + pixel[p];
            const vr b0 = load(strip), b1 = vectors > 1 ? load(strip + VL) : b0;
            __builtin_prefetch(next, 0, 2);
#pragma GCC unroll 16
            for (int i = 0; i < m; i++) {
                if (i && i % 3 == 0) {
                    from += 3 * plane;
                    hold_address(from);
                }
                const REAL a = from[i % 3 * plane];
                sum[i][0] += a * b0;
                if (vectors > 1) sum[i][1] += a * b1;
            }
        }
    }
#pragma GCC unroll 16
    for (int i = 0; i < m; i++, sums += ld)
        for (int v = 0; v < vectors; v++)
            store(sums + v * VL, accumulate ? load(sums + v * VL) + sum[i][v] : sum[i][v]);
}

typedef void (*plane_kernel)(int vectors, idx pixels, const REAL *planes, idx plane, const idx *pixel, const REAL *strip,
                             REAL *sums, idx ld, const REAL *bias, int accumulate, const struct soon *soon);
#define PLANES(m) \
    static void plane_products_##m(int vectors, idx pixels, const REAL *planes, idx plane, const idx *pixel, \
                                   const REAL *strip, REAL *sums, idx ld, const REAL *bias, int accumulate, \
                                   const struct soon *soon) { \
        if (vectors > 1) plane_products(m, 2, pixels, planes, plane, pixel, strip, sums, ld, bias, accumulate, soon); \
        else plane_products(m, 1, pixels, planes, plane, pixel, strip, sums, ld, bias, accumulate, soon); \
    }
FOR_HEIGHTS(PLANES)
#define PLANES_OF(m) plane_products_##m,
static const plane_kernel plane_kernels[] = {NULL, FOR_HEIGHTS(PLANES_OF)};

/* ---- strips of pixels ---- */

/* Every second one of 2 n - 1 elements. The last vector overlaps with the one before, and ends with the last element. */
#define LAST_EVENS(i) (2 * (i) + (2 * (i) >= LANES_IN_VECTOR))
INLINE void skip_every_other(idx n, const REAL *x, REAL *d) {
    if (n < VL) {
        const idx left = 2 * n - 1;
        store_n(d, SHUFFLE(load_part(x, left), left > VL ? load_n(x + VL, left - VL) : (vr){0}, EVEN_LANES), n);
        return;
    }
    const idx last = n - VL;
    for (idx i = 0; i < last; i += VL) store(d + i, SHUFFLE(load(x + 2 * i), load(x + 2 * i + VL), EVEN_LANES));
    store(d + last, SHUFFLE(load(x + 2 * last), load(x + 2 * last + VL - 1), LAST_EVENS));
}

/* Every element that is `step` from the last. */
static void skip_columns(idx channels, idx n, const REAL *x, idx plane, idx step, REAL *d, idx pitch) {
    for (idx c = 0; c < channels; c++, x += plane, d += pitch)
        if (step == 2) skip_every_other(n, x, d);
        else for (idx i = 0; i < n; i++) d[i] = x[step * i];
}
