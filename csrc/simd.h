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
INLINE vr broadcast(REAL a) { return a - (vr){0}; }   /* a - 0, not 0 + a: keeps -0 */

/* The first n <= VL elements; load_n fills up with 0 and touches nothing beyond. */
#if VECTOR_BYTES == 64
#define LANES(n) FOR_REAL((__mmask16)((1u << (n)) - 1), (__mmask8)((1u << (n)) - 1))
INLINE vr load_n(const REAL *p, idx n) { return FOR_REAL((vr)_mm512_maskz_loadu_ps, (vr)_mm512_maskz_loadu_pd)(LANES(n), p); }
INLINE void store_n(REAL *p, vr v, idx n) { FOR_REAL(_mm512_mask_storeu_ps, _mm512_mask_storeu_pd)(p, LANES(n), v); }
#elif VECTOR_BYTES == 32
INLINE vi lanes(idx n) {
    const vi ramp = FOR_REAL(((vi){0, 1, 2, 3, 4, 5, 6, 7}), ((vi){0, 1, 2, 3}));
    return ramp < ((integer)n - (vi){0});
}
INLINE vr load_n(const REAL *p, idx n) { return FOR_REAL((vr)_mm256_maskload_ps, (vr)_mm256_maskload_pd)(p, (__m256i)lanes(n)); }
INLINE void store_n(REAL *p, vr v, idx n) { FOR_REAL(_mm256_maskstore_ps, _mm256_maskstore_pd)(p, (__m256i)lanes(n), v); }
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

/* ---- choice ---- */

INLINE vr choose(vi mask, vr a, vr b) { return (vr)((mask & (vi)a) | (~mask & (vi)b)); }

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

#define SIGN_BIT ((integer)((uint64_t)1 << (8 * sizeof(REAL) - 1)))
INLINE vr vabs(vr x) { return (vr)((vi)x & ~(SIGN_BIT - (vi){0})); }
INLINE vr copy_sign(vr magnitude, vr sign) { return (vr)(((vi)vabs(magnitude)) | ((vi)sign & (SIGN_BIT - (vi){0}))); }

/* Sums the lanes pairwise, halves onto halves: a fixed order, the same on every machine of one instruction set. */
INLINE REAL horizontal_sum(vr v) {
#if VECTOR_BYTES == 64
    return FOR_REAL(_mm512_reduce_add_ps, _mm512_reduce_add_pd)(v);
#else
    for (idx half = VL / 2; half >= 1; half /= 2)
        for (idx i = 0; i < half; i++) v[i] += v[i + half];
    return v[0];
#endif
}
INLINE REAL horizontal_max(vr v) {   /* NaN wins */
    REAL m = v[0];
    for (idx i = 1; i < VL; i++) m = v[i] > m || v[i] != v[i] ? v[i] : m;
    return m;
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

/* e^x = 2^k e^r with |r| <= ln 2 / 2, where the Taylor series is shorter than the rounding error. */
INLINE vr vexp(vr x) {
    static const REAL taylor[] = {
#if !REAL_IS_FLOAT
        1 / 6227020800., 1 / 479001600., 1 / 39916800., 1 / 3628800., 1 / 362880., 1 / 40320.,
#endif
        (REAL)(1 / 5040.), (REAL)(1 / 720.), (REAL)(1 / 120.), (REAL)(1 / 24.), (REAL)(1 / 6.), (REAL)0.5, 1, 1};
    /* Adding 1.5 * 2^MANTISSA leaves the rounded value in the low bits. */
    const REAL magic = FOR_REAL(12582912.f, 6755399441055744.);
    x = vmin(broadcast(FOR_REAL(89.f, 710.)), vmax(broadcast(FOR_REAL(-104.f, -746.)), x));   /* NaN passes */
    vr shifted = x * FOR_REAL(1.44269504f, 1.4426950408889634) + magic, k = shifted - magic;
    vi n = (vi)shifted - (vi)broadcast(magic), half = n >> 1;
    vr r = x - k * LN2_HIGH - k * LN2_LOW;
    vr y = polynomial(r, taylor, sizeof taylor / sizeof *taylor);
    return y * power_of_two(half) * power_of_two(n - half);   /* two steps: 2^n itself may leave the range */
}

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

/* e^-|x| cannot overflow. */
INLINE vr vsigmoid(vr x) {
    vr e = vexp(-vabs(x));
    return choose(x < 0, e, broadcast(1)) / (1 + e);
}

/* Near 0 a polynomial or rational (Cephes), because 1 - 2/(e^2x + 1) cancels there. */
INLINE vr vtanh(vr x) {
    vr a = vabs(x), z = x * x;
#if REAL_IS_FLOAT
    static const REAL p[] = {-5.70498872745e-3f, 2.06390887954e-2f, -5.37397155531e-2f, 1.33314422036e-1f, -3.33332819422e-1f};
    vr near = x + x * z * polynomial(z, p, 5);
#else
    static const REAL p[] = {-9.64399179425052238628e-1, -9.92877231001918586564e1, -1.61468768441708447952e3};
    static const REAL q[] = {1, 1.12811678491632931402e2, 2.23548839060100448583e3, 4.84406305325125486048e3};
    vr near = x + x * z * (polynomial(z, p, 3) / polynomial(z, q, 4));
#endif
    vr far = 1 - 2 / (vexp(a + a) + 1);
    return copy_sign(choose(a < FOR_REAL(0.625f, 0.625), near, far), x);
}

#endif
