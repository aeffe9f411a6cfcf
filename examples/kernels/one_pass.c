/* y = 2 x + 1 in one pass: the value in between is never in memory. */
#include "vector.h"

void one_pass(long n, const float *x, float *y) {
    long i = 0;
    for (; i + VL <= n; i += VL) store(y + i, 2 * load(x + i) + 1);
    for (; i < n; i++) y[i] = 2 * x[i] + 1;
}
