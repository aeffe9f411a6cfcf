/* One vocabulary for all instruction sets, on the vector extensions of GCC and clang: arithmetic and comparison are plain
   operators (a + b, a < b), so a kernel reads like the scalar loop that it replaces. Intrinsics appear only where the
   compilers have no portable form that is fast.

   REAL            float or double
   VECTOR_BYTES    16 (SSE2, NEON), 32 (AVX2) or 64 (AVX-512)
   vr, vi          VL reals; VL integers of the same width (what a comparison returns: -1 or 0) */
#ifndef CNN_SIMD_H
#define CNN_SIMD_H

#include <math.h>
#include <stdint.h>
#include <string.h>

#if defined(__SSE2__)
#include <immintrin.h>
#elif defined(__ARM_NEON)
#include <arm_neon.h>
#endif

#define INLINE static inline __attribute__((always_inline, unused))
#define MIN(a, b) ((a) < (b) ? (a) : (b))
#define MAX(a, b) ((a) > (b) ? (a) : (b))

#if REAL_IS_FLOAT
typedef int32_t integer;
#define FOR_REAL(f32, f64) f32
#else
typedef int64_t integer;
#define FOR_REAL(f32, f64) f64
#endif

typedef REAL vr __attribute__((vector_size(VECTOR_BYTES)));
typedef integer vi __attribute__((vector_size(VECTOR_BYTES)));
typedef REAL vr_unaligned __attribute__((vector_size(VECTOR_BYTES), aligned(sizeof(REAL)), may_alias));
#define VL ((idx)(VECTOR_BYTES / sizeof(REAL)))

/* ---- memory ---- */

INLINE vr load(const REAL *p) { return *(const vr_unaligned *)p; }
INLINE void store(REAL *p, vr v) { *(vr_unaligned *)p = v; }

/* For a loop that waits for memory: AMD's Zen 4 brings 64 bytes sooner as twice 32. */
INLINE vr load_in_halves(const REAL *p) {
#if VECTOR_BYTES == 64 && REAL_IS_FLOAT
    return (vr)_mm512_insertf32x8(_mm512_castps256_ps512(_mm256_loadu_ps(p)), _mm256_loadu_ps(p + VL / 2), 1);
#elif VECTOR_BYTES == 64
    return (vr)_mm512_insertf64x4(_mm512_castpd256_pd512(_mm256_loadu_pd(p)), _mm256_loadu_pd(p + VL / 2), 1);
#else
    return load(p);
#endif
}

/* To an aligned p in lines that are written whole: what does not fit into the caches anyway need not be read into them first.
   Other threads see it after wait_for_stores(). */
INLINE void store_past_caches(REAL *p, vr v) {
#if VECTOR_BYTES == 64
    FOR_REAL(_mm512_stream_ps, _mm512_stream_pd)(p, (FOR_REAL(__m512, __m512d))v);
#elif VECTOR_BYTES == 32
    FOR_REAL(_mm256_stream_ps, _mm256_stream_pd)(p, (FOR_REAL(__m256, __m256d))v);
#elif defined(__SSE2__)
    FOR_REAL(_mm_stream_ps, _mm_stream_pd)(p, (FOR_REAL(__m128, __m128d))v);
#else
    store(p, v);
#endif
}
INLINE void wait_for_stores(void) {
#if defined(__SSE2__)
    _mm_sfence();
#endif
}

/* Where a loop only passes through its arrays, Intel's hardware fetches ahead up to the end of a page and starts anew on the
   next: a page ahead is asked for by hand. AMD's goes on, and what is asked for besides costs it more than it brings. */
enum { LINE = 64 / sizeof(REAL), READ_AHEAD = 4096 };   /* elements in a line of the cache; bytes */
INLINE void prefetch_ahead(const REAL *p) { __builtin_prefetch((const char *)p + READ_AHEAD); }
INLINE void prefetch_to_write(const REAL *p) { __builtin_prefetch((const char *)p + READ_AHEAD, 1); }
INLINE int asks_for_pages(void) {
#if defined(__x86_64__) || defined(_M_X64)
    return __builtin_cpu_is("intel");
#else
    return 0;
#endif
}

INLINE vr broadcast(REAL a) { return a - (vr){0}; }   /* a - 0, not 0 + a: keeps -0 */

/* The numbers of the lanes: 0, 1, 2 ... */
INLINE vi lane_numbers(void) {
    static const integer number[] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    vi v;
    memcpy(&v, number, sizeof v);
    return v;
}
INLINE vi first_lanes(idx n) { return lane_numbers() < ((integer)n - (vi){0}); }

/* The first n <= VL elements; load_n fills up with 0 and touches nothing beyond. */
#if VECTOR_BYTES == 64
#define LANES(n) FOR_REAL((__mmask16)((1u << (n)) - 1), (__mmask8)((1u << (n)) - 1))
INLINE vr load_n(const REAL *p, idx n) { return FOR_REAL((vr)_mm512_maskz_loadu_ps, (vr)_mm512_maskz_loadu_pd)(LANES(n), p); }
INLINE void store_n(REAL *p, vr v, idx n) { FOR_REAL(_mm512_mask_storeu_ps, _mm512_mask_storeu_pd)(p, LANES(n), v); }
#elif VECTOR_BYTES == 32
INLINE vr load_n(const REAL *p, idx n) {
    return FOR_REAL((vr)_mm256_maskload_ps, (vr)_mm256_maskload_pd)(p, (__m256i)first_lanes(n));
}
INLINE void store_n(REAL *p, vr v, idx n) {
    FOR_REAL(_mm256_maskstore_ps, _mm256_maskstore_pd)(p, (__m256i)first_lanes(n), v);
}
#else
INLINE vr load_n(const REAL *p, idx n) {
    vr v = {0};
    for (idx i = 0; i < n; i++) v[i] = p[i];
    return v;
}
INLINE void store_n(REAL *p, vr v, idx n) {
    for (idx i = 0; i < n; i++) p[i] = v[i];
}
#endif

/* Loaded once: GCC is free to read memory anew in each instruction that uses v, which costs twice where a vector straddles two
   lines of the cache. */
#if defined(__x86_64__)
#define hold(v) __asm__("" : "+v"(v))
#elif defined(__aarch64__)
#define hold(v) __asm__("" : "+w"(v))
#else
#define hold(v) (void)0
#endif
#if defined(__GNUC__)
#define hold_address(p) __asm__("" : "+r"(p))
#else
#define hold_address(p) (void)0
#endif

/* ---- choice ---- */

#if VECTOR_BYTES == 32
INLINE vr choose(vi mask, vr a, vr b) { return FOR_REAL((vr)_mm256_blendv_ps, (vr)_mm256_blendv_pd)(b, a, (vr)mask); }
#else
INLINE vr choose(vi mask, vr a, vr b) { return (vr)((mask & (vi)a) | (~mask & (vi)b)); }
#endif

/* The same for any n > 0: a whole vector where there is one. */
INLINE vr load_part(const REAL *p, idx n) { return n >= VL ? load(p) : load_n(p, n); }
INLINE void store_part(REAL *p, vr v, idx n) {
    if (n >= VL) store(p, v);
    else store_n(p, v, n);
}
INLINE vr keep_lanes(vr v, idx n) { return n >= VL ? v : (vr)((vi)v & first_lanes(n)); }   /* the others 0 */
INLINE vr load_or(const REAL *p, idx n, REAL fill) {                                       /* the others `fill` */
    return n >= VL ? load(p) : choose(first_lanes(n), load_n(p, n), broadcast(fill));
}

/* a > b ? a : b, so b when either is NaN: vmax(zero, x) lets a NaN in x through. */
#if VECTOR_BYTES == 64
INLINE vr vmax(vr a, vr b) { return FOR_REAL((vr)_mm512_max_ps, (vr)_mm512_max_pd)(a, b); }
INLINE vr vmin(vr a, vr b) { return FOR_REAL((vr)_mm512_min_ps, (vr)_mm512_min_pd)(a, b); }
INLINE vr vsqrt(vr x) { return FOR_REAL((vr)_mm512_sqrt_ps, (vr)_mm512_sqrt_pd)(x); }
#elif VECTOR_BYTES == 32
INLINE vr vmax(vr a, vr b) { return FOR_REAL((vr)_mm256_max_ps, (vr)_mm256_max_pd)(a, b); }
INLINE vr vmin(vr a, vr b) { return FOR_REAL((vr)_mm256_min_ps, (vr)_mm256_min_pd)(a, b); }
INLINE vr vsqrt(vr x) { return FOR_REAL((vr)_mm256_sqrt_ps, (vr)_mm256_sqrt_pd)(x); }
#elif defined(__SSE2__)
INLINE vr vmax(vr a, vr b) { return FOR_REAL((vr)_mm_max_ps, (vr)_mm_max_pd)(a, b); }
INLINE vr vmin(vr a, vr b) { return FOR_REAL((vr)_mm_min_ps, (vr)_mm_min_pd)(a, b); }
INLINE vr vsqrt(vr x) { return FOR_REAL((vr)_mm_sqrt_ps, (vr)_mm_sqrt_pd)(x); }
#else
INLINE vr vmax(vr a, vr b) { return choose(a > b, a, b); }
INLINE vr vmin(vr a, vr b) { return choose(a < b, a, b); }
INLINE vr vsqrt(vr x) {
    for (idx i = 0; i < VL; i++) x[i] = FOR_REAL(sqrtf, sqrt)(x[i]);
    return x;
}
#endif

/* best and its number, the first of equals; a NaN is passed over. */
INLINE void keep_greater_of(vr v, vi numbers, vr *best, vi *winner) {
#if VECTOR_BYTES == 64
    const FOR_REAL(__mmask16, __mmask8) wins = FOR_REAL(_mm512_cmp_ps_mask, _mm512_cmp_pd_mask)(v, *best, _CMP_GT_OQ);
    *winner = (vi)FOR_REAL(_mm512_mask_mov_epi32, _mm512_mask_mov_epi64)((__m512i)*winner, wins, (__m512i)numbers);
#else
    *winner = (vi)choose(v > *best, (vr)numbers, (vr)*winner);
#endif
    *best = vmax(v, *best);
}
INLINE void keep_greater(vr v, integer number, vr *best, vi *winner) { keep_greater_of(v, number - (vi){0}, best, winner); }
/* The same, where the first NaN wins and stays. */
INLINE void keep_larger_of(vr v, vi numbers, vr *best, vi *winner) {
#if VECTOR_BYTES == 64
    const FOR_REAL(__mmask16, __mmask8) larger = FOR_REAL(_mm512_cmp_ps_mask, _mm512_cmp_pd_mask)(v, *best, _CMP_NLE_UQ),
        wins = FOR_REAL(_mm512_mask_cmp_ps_mask, _mm512_mask_cmp_pd_mask)(larger, *best, *best, _CMP_ORD_Q);
    *best = FOR_REAL((vr)_mm512_mask_mov_ps, (vr)_mm512_mask_mov_pd)(*best, wins, v);
    *winner = (vi)FOR_REAL(_mm512_mask_mov_epi32, _mm512_mask_mov_epi64)((__m512i)*winner, wins, (__m512i)numbers);
#else
    const vi wins = ~(v <= *best) & (*best == *best);
    *best = choose(wins, v, *best);
    *winner = (vi)choose(wins, (vr)numbers, (vr)*winner);
#endif
}
INLINE void keep_larger(vr v, integer number, vr *best, vi *winner) { keep_larger_of(v, number - (vi){0}, best, winner); }

/* A bit per lane of a mask, the first one lowest. */
INLINE unsigned bits_of(vi mask) {
#if VECTOR_BYTES == 64
    return FOR_REAL(_mm512_movepi32_mask, _mm512_movepi64_mask)((__m512i)mask);
#elif VECTOR_BYTES == 32
    return (unsigned)FOR_REAL(_mm256_movemask_ps((__m256)mask), _mm256_movemask_pd((__m256d)mask));
#elif defined(__SSE2__)
    return (unsigned)FOR_REAL(_mm_movemask_ps((__m128)mask), _mm_movemask_pd((__m128d)mask));
#else
    unsigned bits = 0;
    for (idx i = 0; i < VL; i++) bits |= (unsigned)(mask[i] & 1) << i;
    return bits;
#endif
}
INLINE int any(vi mask) { return bits_of(mask) != 0; }

/* Masks in an array of bits: those of elements i ... i + VL - 1, of which n are left; i is a multiple of VL. */
#define BYTES_OF_BITS(n) ((size_t)(VL > 8 && (n) > 8 ? 2 : 1))
INLINE vi load_bits(const uint8_t *p, idx i, idx n) {
    uint16_t bits = 0;
    memcpy(&bits, p + (i >> 3), BYTES_OF_BITS(n));
    bits = (uint16_t)(bits >> i % 8);
#if VECTOR_BYTES == 64
    return (vi)FOR_REAL(_mm512_movm_epi32, _mm512_movm_epi64)(FOR_REAL(bits, (uint8_t)bits));
#else
    const vi bit = ((integer)1 - (vi){0}) << lane_numbers();
    return ((integer)bits & bit) == bit;
#endif
}
INLINE void store_bits(uint8_t *p, idx i, vi mask, idx n) {   /* in order: clears what follows in the last byte */
    const unsigned before = i % 8 ? p[i >> 3] : 0;
    const uint16_t bits = (uint16_t)(before | bits_of(n < VL ? mask & first_lanes(n) : mask) << i % 8);
    memcpy(p + i / 8, &bits, BYTES_OF_BITS(n));
}

#define SIGN_BIT ((integer)((uint64_t)1 << (8 * sizeof(REAL) - 1)))
INLINE vr vabs(vr x) { return (vr)((vi)x & ~(SIGN_BIT - (vi){0})); }
INLINE vr copy_sign(vr magnitude, vr sign) { return (vr)(((vi)vabs(magnitude)) | ((vi)sign & (SIGN_BIT - (vi){0}))); }

/* ---- lanes ---- */

/* SHUFFLE(a, b, source): lane i is lane source(i) of a followed by b; `source` is a macro that gives a constant. */
#define LANES_IN_VECTOR (VECTOR_BYTES / (REAL_IS_FLOAT ? 4 : 8))   /* VL for the preprocessor */
#if LANES_IN_VECTOR == 2
#define SHUFFLE(a, b, s) __builtin_shufflevector(a, b, s(0), s(1))
#elif LANES_IN_VECTOR == 4
#define SHUFFLE(a, b, s) __builtin_shufflevector(a, b, s(0), s(1), s(2), s(3))
#elif LANES_IN_VECTOR == 8
#define SHUFFLE(a, b, s) __builtin_shufflevector(a, b, s(0), s(1), s(2), s(3), s(4), s(5), s(6), s(7))
#else
#define SHUFFLE(a, b, s) \
    __builtin_shufflevector(a, b, s(0), s(1), s(2), s(3), s(4), s(5), s(6), s(7), s(8), s(9), s(10), s(11), s(12), s(13), \
                            s(14), s(15))
#endif

#define PARTNER_1(i) ((i) ^ 1)
#define PARTNER_2(i) ((i) ^ 2)
#define PARTNER_4(i) ((i) ^ 4)
#define PARTNER_8(i) ((i) ^ 8)
#if LANES_IN_VECTOR == 2
#define FOLD(v, f) v = f(v, SHUFFLE(v, v, PARTNER_1))
#elif LANES_IN_VECTOR == 4
#define FOLD(v, f) v = f(v, SHUFFLE(v, v, PARTNER_2)), v = f(v, SHUFFLE(v, v, PARTNER_1))
#elif LANES_IN_VECTOR == 8
#define FOLD(v, f) \
    v = f(v, SHUFFLE(v, v, PARTNER_4)), v = f(v, SHUFFLE(v, v, PARTNER_2)), v = f(v, SHUFFLE(v, v, PARTNER_1))
#else
#define FOLD(v, f)                                                               \
    v = f(v, SHUFFLE(v, v, PARTNER_8)), v = f(v, SHUFFLE(v, v, PARTNER_4)), \
    v = f(v, SHUFFLE(v, v, PARTNER_2)), v = f(v, SHUFFLE(v, v, PARTNER_1))
#endif

/* Halves onto halves: a fixed order, the same on every machine of one instruction set. */
INLINE vr add(vr a, vr b) { return a + b; }
INLINE REAL horizontal_sum(vr v) {
    FOLD(v, add);
    return v[0];
}
INLINE REAL horizontal_max(vr v) {   /* a NaN may get lost */
    FOLD(v, vmax);
    return v[0];
}

/* v[i] becomes lane i of all. First inside the blocks of 128 bits, where shuffles are cheapest, then the blocks. */
enum { LANES_IN_BLOCK = FOR_REAL(4, 2), BLOCKS = LANES_IN_VECTOR / LANES_IN_BLOCK };
#define IN_BLOCK(i) ((i) % LANES_IN_BLOCK)
#define LOW_ONES(i) ((i) - IN_BLOCK(i) + IN_BLOCK(i) / 2 + IN_BLOCK(i) % 2 * LANES_IN_VECTOR)
#define HIGH_ONES(i) (LOW_ONES(i) + LANES_IN_BLOCK / 2)
#define LOW_PAIRS(i) ((i) - IN_BLOCK(i) + IN_BLOCK(i) % 2 + IN_BLOCK(i) / 2 * LANES_IN_VECTOR)
#define HIGH_PAIRS(i) (LOW_PAIRS(i) + 2)
#define EVEN_BLOCKS(i) (2 * (i) - IN_BLOCK(i))
#define ODD_BLOCKS(i) (EVEN_BLOCKS(i) + LANES_IN_BLOCK)

INLINE void transpose(vr *v) {
#pragma GCC unroll 8
    for (idx r = 0; r < VL; r += LANES_IN_BLOCK) {
        vr *q = v + r;
#if REAL_IS_FLOAT
        const vr a = SHUFFLE(q[0], q[1], LOW_ONES), b = SHUFFLE(q[0], q[1], HIGH_ONES);
        const vr c = SHUFFLE(q[2], q[3], LOW_ONES), d = SHUFFLE(q[2], q[3], HIGH_ONES);
        q[0] = SHUFFLE(a, c, LOW_PAIRS), q[1] = SHUFFLE(a, c, HIGH_PAIRS);
        q[2] = SHUFFLE(b, d, LOW_PAIRS), q[3] = SHUFFLE(b, d, HIGH_PAIRS);
#else
        const vr a = SHUFFLE(q[0], q[1], LOW_ONES), b = SHUFFLE(q[0], q[1], HIGH_ONES);
        q[0] = a, q[1] = b;
#endif
    }
#pragma GCC unroll 4
    for (idx j = 0; j < LANES_IN_BLOCK; j++) {
        vr *q = v + j;
#if VECTOR_BYTES / 16 == 2
        const vr a = SHUFFLE(q[0], q[LANES_IN_BLOCK], EVEN_BLOCKS), b = SHUFFLE(q[0], q[LANES_IN_BLOCK], ODD_BLOCKS);
        q[0] = a, q[LANES_IN_BLOCK] = b;
#elif VECTOR_BYTES / 16 == 4
        const vr a = SHUFFLE(q[0], q[LANES_IN_BLOCK], EVEN_BLOCKS), b = SHUFFLE(q[0], q[LANES_IN_BLOCK], ODD_BLOCKS);
        const vr c = SHUFFLE(q[2 * LANES_IN_BLOCK], q[3 * LANES_IN_BLOCK], EVEN_BLOCKS);
        const vr d = SHUFFLE(q[2 * LANES_IN_BLOCK], q[3 * LANES_IN_BLOCK], ODD_BLOCKS);
        q[0] = SHUFFLE(a, c, EVEN_BLOCKS), q[LANES_IN_BLOCK] = SHUFFLE(b, d, EVEN_BLOCKS);
        q[2 * LANES_IN_BLOCK] = SHUFFLE(a, c, ODD_BLOCKS), q[3 * LANES_IN_BLOCK] = SHUFFLE(b, d, ODD_BLOCKS);
#else
        (void)q;
#endif
    }
}

/* Lane i is the sum of v[i]: neighbours are added, of two vectors at a time. */
#define EVENS_IN_BLOCK(i) \
    ((i) - IN_BLOCK(i) + 2 * IN_BLOCK(i) % LANES_IN_BLOCK + 2 * IN_BLOCK(i) / LANES_IN_BLOCK * LANES_IN_VECTOR)
#define ODDS_IN_BLOCK(i) (EVENS_IN_BLOCK(i) + 1)
INLINE vr horizontal_sums(vr *v) {
#pragma GCC unroll 4
    for (idx n = VL / 2, in_block = LANES_IN_BLOCK / 2; n; n /= 2, in_block /= 2)
#pragma GCC unroll 8
        for (idx i = 0; i < n; i++)
            v[i] = in_block ? SHUFFLE(v[2 * i], v[2 * i + 1], EVENS_IN_BLOCK) + SHUFFLE(v[2 * i], v[2 * i + 1], ODDS_IN_BLOCK)
                            : SHUFFLE(v[2 * i], v[2 * i + 1], EVEN_BLOCKS) + SHUFFLE(v[2 * i], v[2 * i + 1], ODD_BLOCKS);
    return v[0];
}

/* v[0] ... v[n-1], n a power of two: of the n VL lanes in a row, number i n + k becomes lane i of v[k]; and back. */
#define EVEN_LANES(i) (2 * (i))
#define ODD_LANES(i) (2 * (i) + 1)
#define ZIP_LOW(i) ((i) / 2 + (i) % 2 * LANES_IN_VECTOR)
#define ZIP_HIGH(i) (ZIP_LOW(i) + LANES_IN_VECTOR / 2)
/* Two vectors unzipped where the order of the lanes does not matter until in_order() mends it, or ZIP_DEALT zips them again:
   with AVX2, a shuffle inside of the halves is one instruction, across them three. */
#if VECTOR_BYTES == 32
#define DEALT(i) (IN_BLOCK(i) / (LANES_IN_BLOCK / 2) * LANES_IN_VECTOR + ((i) - IN_BLOCK(i)) + (i) % (LANES_IN_BLOCK / 2) * 2)
#define DEALT_ODD(i) (DEALT(i) + 1)
#define MENDED(i) ((i) % (LANES_IN_VECTOR / 2) / (LANES_IN_BLOCK / 2) * LANES_IN_BLOCK \
                   + (i) / (LANES_IN_VECTOR / 2) * (LANES_IN_BLOCK / 2) + (i) % (LANES_IN_BLOCK / 2))
#define ZIP_DEALT_LOW LOW_ONES
#define ZIP_DEALT_HIGH HIGH_ONES
#else
#define DEALT EVEN_LANES
#define DEALT_ODD ODD_LANES
#define MENDED(i) (i)
#define ZIP_DEALT_LOW ZIP_LOW
#define ZIP_DEALT_HIGH ZIP_HIGH
#endif
INLINE vr in_order(vr v) { return SHUFFLE(v, v, MENDED); }
INLINE vr as_dealt(vr v) { return SHUFFLE(v, v, MENDED); }   /* done twice, it is undone */
INLINE void unzip(vr *v, const idx n) {
#pragma GCC unroll 3
    for (idx done = 1; done < n; done *= 2) {
        vr w[8];
#pragma GCC unroll 4
        for (idx i = 0; i < n / 2; i++)
            w[i] = SHUFFLE(v[2 * i], v[2 * i + 1], EVEN_LANES), w[n / 2 + i] = SHUFFLE(v[2 * i], v[2 * i + 1], ODD_LANES);
#pragma GCC unroll 8
        for (idx i = 0; i < n; i++) v[i] = w[i];
    }
}
INLINE void zip(vr *v, const idx n) {
#pragma GCC unroll 3
    for (idx done = 1; done < n; done *= 2) {
        vr w[8];
#pragma GCC unroll 4
        for (idx i = 0; i < n / 2; i++)
            w[2 * i] = SHUFFLE(v[i], v[n / 2 + i], ZIP_LOW), w[2 * i + 1] = SHUFFLE(v[i], v[n / 2 + i], ZIP_HIGH);
#pragma GCC unroll 8
        for (idx i = 0; i < n; i++) v[i] = w[i];
    }
}

/* One byte per lane. */
typedef uint8_t lane_bytes __attribute__((vector_size(LANES_IN_VECTOR)));
INLINE vi load_bytes(const uint8_t *p, idx n) {   /* lanes from n on are 0 */
#if VECTOR_BYTES == 64   /* GCC converts such vectors byte by byte */
    if (n >= VL)
        return (vi)FOR_REAL(_mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)p)),
                            _mm512_cvtepu8_epi64(_mm_loadl_epi64((const __m128i *)p)));
#elif VECTOR_BYTES == 32 && REAL_IS_FLOAT
    if (n >= VL) return (vi)_mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)p));
#endif
    lane_bytes b = {0};
    if (n >= VL) memcpy(&b, p, sizeof b);
    else for (idx i = 0; i < n; i++) b[i] = p[i];
    return __builtin_convertvector(b, vi);
}
INLINE lane_bytes bytes_of(vi v) {
#if VECTOR_BYTES == 32   /* the low bytes of the lanes of each half to its front, then the halves together */
    const __m256i fronts = _mm256_shuffle_epi8((__m256i)v, _mm256_broadcastsi128_si256(FOR_REAL(
                               _mm_setr_epi8(0, 4, 8, 12, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1),
                               _mm_setr_epi8(0, 8, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1))));
    const __m128i low = _mm256_castsi256_si128(fronts), high = _mm256_extracti128_si256(fronts, 1);
    const __m128i all = FOR_REAL(_mm_unpacklo_epi32, _mm_unpacklo_epi16)(low, high);
    lane_bytes b;
    memcpy(&b, &all, sizeof b);
    return b;
#elif VECTOR_BYTES == 64
    const __m128i all = FOR_REAL(_mm512_cvtepi32_epi8, _mm512_cvtepi64_epi8)((__m512i)v);
    lane_bytes b;
    memcpy(&b, &all, sizeof b);
    return b;
#else
    return __builtin_convertvector(v, lane_bytes);
#endif
}
INLINE void store_bytes(uint8_t *p, vi v, idx n) {
    const lane_bytes b = bytes_of(v);
    if (n >= VL) memcpy(p, &b, sizeof b);
    else for (idx i = 0; i < n; i++) p[i] = b[i];
}

/* The first n <= VECTOR_BYTES bytes of a vector. */
INLINE void store_start(void *to, vr v, idx n) {
#if VECTOR_BYTES == 64
    _mm512_mask_storeu_epi8(to, n >= 64 ? ~0ull : (1ull << n) - 1, (__m512i)v);
#else
    char bytes[VECTOR_BYTES], *p = to;
    memcpy(bytes, &v, sizeof v);
    idx i = 0;
    if (n >= VECTOR_BYTES) memcpy(p, bytes, VECTOR_BYTES), i = n;
#pragma GCC unroll 5
    for (idx piece = VECTOR_BYTES / 2; piece >= 1; piece /= 2)
        if (n - i >= piece) memcpy(p + i, bytes + i, (size_t)piece), i += piece;
#endif
}

/* ---- functions: float within 5 ulp, double about 1e-15 relative; infinities, NaN, overflow and underflow as in libm ---- */

enum { MANTISSA = FOR_REAL(23, 52), BIAS = FOR_REAL(127, 1023) };
static const REAL LN2_HIGH = FOR_REAL(0.693359375f, 6.93145751953125e-1);   /* few bits, so k * LN2_HIGH is exact */
static const REAL LN2_LOW = FOR_REAL(-2.12194440e-4f, 1.42860682030941723212e-6);

INLINE vr polynomial(vr x, const REAL *c, int n) {   /* c[0] x^(n-1) + ... + c[n-1] */
    vr y = broadcast(c[0]);
#pragma GCC unroll 16
    for (int i = 1; i < n; i++) y = y * x + c[i];
    return y;
}
INLINE vr power_of_two(vi k) { return (vr)((k + BIAS) << MANTISSA); }

/* x = k ln 2 + r with a whole k and |r| <= ln 2 / 2. Adding 1.5 * 2^MANTISSA leaves the rounded k in the low bits of `shifted`. */
static const REAL MAGIC = FOR_REAL(12582912.f, 6755399441055744.);
struct reduced { vr shifted, k, r; };
INLINE struct reduced reduce(vr x) {
    vr shifted = x * FOR_REAL(1.44269504f, 1.4426950408889634) + MAGIC, k = shifted - MAGIC;
    return (struct reduced){shifted, k, x - k * LN2_HIGH - k * LN2_LOW};
}
INLINE vi whole(struct reduced x) { return (vi)x.shifted - (vi)broadcast(MAGIC); }

/* (e^r - 1 - r) / r^2: there the Taylor series is shorter than the rounding error. */
INLINE vr exp_beyond_linear(vr r) {
    static const REAL taylor[] = {
#if !REAL_IS_FLOAT
        1 / 6227020800., 1 / 479001600., 1 / 39916800., 1 / 3628800., 1 / 362880., 1 / 40320.,
#endif
        (REAL)(1 / 5040.), (REAL)(1 / 720.), (REAL)(1 / 120.), (REAL)(1 / 24.), (REAL)(1 / 6.), (REAL)0.5};
    return polynomial(r, taylor, sizeof taylor / sizeof *taylor);
}

/* e^x = 2^k e^r, for an x that is not above 89 (float) or 710. */
INLINE vr exp_without_overflow(vr x) {
    struct reduced e = reduce(vmax(broadcast(FOR_REAL(-104.f, -746.)), x));   /* NaN passes */
    vr y = (exp_beyond_linear(e.r) * e.r + 1) * e.r + 1;
#if VECTOR_BYTES == 64
    return FOR_REAL((vr)_mm512_scalef_ps, (vr)_mm512_scalef_pd)(y, e.k);
#else
    const vi n = whole(e), half = n >> 1;
    return y * power_of_two(half) * power_of_two(n - half);   /* two steps: 2^n itself may leave the range */
#endif
}
INLINE vr vexp(vr x) { return exp_without_overflow(vmin(broadcast(FOR_REAL(89.f, 710.)), x)); }

/* log x = k ln 2 + log m, m in [sqrt 1/2, sqrt 2]; with s = (m-1)/(m+1), log m = 2 (s + s^3/3 + s^5/5 + ...) */
INLINE vr log_with_correction(vr x, vr correction) {
    static const REAL series[] = {
#if !REAL_IS_FLOAT
        2 / 23., 2 / 21., 2 / 19., 2 / 17., 2 / 15., 2 / 13.,
#endif
        (REAL)(2 / 11.), (REAL)(2 / 9.), (REAL)(2 / 7.), (REAL)(2 / 5.), (REAL)(2 / 3.)};
    const vr zero = {0};
    const REAL smallest = FOR_REAL(1.17549435e-38f, 2.2250738585072014e-308);
    vi denormal = x < smallest;
    vr y = choose(denormal, x * FOR_REAL(16777216.f, 18014398509481984.), x);
    vi k = (((vi)y - (vi)broadcast((REAL)0.70710678118654752)) >> MANTISSA);
    vr m = (vr)((vi)y - (k << MANTISSA));
    k -= denormal & FOR_REAL(24, 54);
    vr e = __builtin_convertvector(k, vr);
    vr f = m - 1, s = f / (m + 1), z = s * s;
    /* 2s = f - s f; the large term f stays apart from the small ones. */
    vr small = s * (z * polynomial(z, series, sizeof series / sizeof *series) - f) + correction + e * LN2_LOW;
    vr result = e * LN2_HIGH + (f + small);
    result = choose(x == INFINITY, x, result);
    result = choose(x == zero, broadcast(-INFINITY), result);
    return choose((vi)(x < zero) | (vi)(x != x), broadcast(NAN), result);
}
INLINE vr vlog(vr x) { return log_with_correction(x, (vr){0}); }

/* log(1 + x): what 1 + x rounds away comes back to first order. */
INLINE vr vlog1p(vr x) {
    vr u = x + 1, lost = (u - x) - 1;   /* for |x| >= 1 the error sits in the 1, below it in the x: both are caught */
    vr rounded = choose(vabs(x) < 1, x - (u - 1), -lost);
    vr correction = choose((vi)(u == INFINITY) | (vi)(u == 0), (vr){0}, rounded / u);
    vr result = log_with_correction(u, correction);
    return choose(x == 0, x, result);   /* keeps -0 */
}

INLINE vr vsigmoid(vr x) {
    vr e = exp_without_overflow(-vabs(x));
    return choose(x < 0, e, broadcast(1)) / (1 + e);
}

/* For x <= 0: 2^k (e^r - 1) + (2^k - 1), which near 0, where k = 0, cancels nothing. */
INLINE vr expm1_of_negative(vr x) {
    struct reduced e = reduce(vmax(broadcast(-80), x));   /* below, it is -1 long since; NaN passes */
    vr scale = power_of_two(whole(e));
    return (exp_beyond_linear(e.r) * e.r * e.r + e.r) * scale + (scale - 1);
}
INLINE vr vtanh(vr x) {
    vr d = expm1_of_negative(-2 * vabs(x));
    return copy_sign(d / (2 + d), x);
}

#endif
