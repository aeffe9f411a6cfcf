/* The machine's limits. First: multiply-adds on registers only, in chains enough to keep every unit busy.
   Returns the operations. */
#include "vector.h"

enum { CHAINS = 12 };

double multiply_adds(long steps) {
    static volatile float sink;   /* makes the compiler keep the work */
    vec x[CHAINS], a = (vec){0} + 0.999f, b = (vec){0} + 0.001f, sum = {0};
    for (int i = 0; i < CHAINS; i++) x[i] = (vec){0} + (float)(2 + i);
    for (long k = 0; k < steps; k++)
#pragma GCC unroll 12
        for (int i = 0; i < CHAINS; i++) x[i] = x[i] * a + b;
    for (int i = 0; i < CHAINS; i++) sum += x[i];
    sink = sum[0];
    return 2.0 * VL * CHAINS * (double)steps;
}

/* The other limit: every float of x is read once. */
float sum(const float *x, long n) {
    vec s[CHAINS] = {{0}};
    for (long i = 0; i + CHAINS * VL <= n; i += CHAINS * VL)
#pragma GCC unroll 12
        for (int v = 0; v < CHAINS; v++) s[v] += load(x + i + v * VL);
    for (int v = 1; v < CHAINS; v++) s[0] += s[v];
    return s[0][0];
}
