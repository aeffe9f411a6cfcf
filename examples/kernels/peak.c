/* The machine's limit: multiply-adds on registers only, in enough chains to keep every unit busy. Returns the operations. */
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
