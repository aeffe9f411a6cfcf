/* Swish, y = x sigmoid(x): forward, followed at once by backward, for one REAL. swish.py compiles this file twice, with
   -DREAL=float -DINT=int32_t -DNAME(f)=f##_f32 and with -DREAL=double -DINT=int64_t -DNAME(f)=f##_f64, and links the two.

   Inputs are const: the engine may hand over read-only arrays. No global state and no allocation, so that any number of
   threads may call it. Elements do not depend on each other and the loops call nothing, so the compiler can compute
   several elements with one instruction: exp() of libm would stop it from doing so (try it, and time it). It also needs
   leave to compute both sides of a choice and drop one: -fno-trapping-math. */
#include <stddef.h>
#include <stdint.h>
#include <string.h>

enum { SINGLE = sizeof(REAL) == 4, DEGREE = SINGLE ? 7 : 13, MANTISSA = SINGLE ? 23 : 52, BIAS = SINGLE ? 127 : 1023 };

/* e^-a for a >= 0. With n the whole number next to a / ln 2, e^-a = 2^-n e^r, |r| <= ln 2 / 2: Taylor's polynomial of
   DEGREE leaves an error below rounding. 2^-n is written into the bits of the exponent. ln 2 comes in two parts, the first
   with so few bits that n times it is exact. */
static inline REAL exp_minus(REAL a) {
    const REAL last = SINGLE ? (REAL)87 : (REAL)708;
    a = a < last ? a : last;
    INT n = (INT)(a * (REAL)1.4426950408889634 + (REAL)0.5);
    REAL r = ((REAL)n * (REAL)0.693145751953125 - a) + (REAL)n * (REAL)1.4286068203094172e-6;
    REAL e = 1;
    for (int k = DEGREE; k > 0; k--) e = 1 + e * r * (REAL)(1.0 / k);
    INT bits = (BIAS - n) * ((INT)1 << MANTISSA);
    REAL power;
    memcpy(&power, &bits, sizeof power);
    return e * power;
}

static inline REAL sigmoid(REAL x) {
    REAL e = exp_minus(x < 0 ? -x : x);   /* at most 1: never overflows */
    return (x < 0 ? e : 1) / (1 + e);
}

void NAME(swish_forward)(ptrdiff_t n, const REAL *x, REAL *restrict y) {
    for (ptrdiff_t i = 0; i < n; i++) y[i] = x[i] * sigmoid(x[i]);
}

/* dx = dy s (1 + x (1 - s)) */
void NAME(swish_backward)(ptrdiff_t n, const REAL *dy, const REAL *x, REAL *restrict dx) {
    for (ptrdiff_t i = 0; i < n; i++) {
        REAL s = sigmoid(x[i]);
        dx[i] = dy[i] * s * (1 + x[i] * (1 - s));
    }
}
