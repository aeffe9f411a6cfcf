/* What this machine can do at most: multiply-adds on registers, and arrays streamed through the caches and memory.
   limits.py compiles this for the machine it runs on, and calls it from as many threads as it measures. */
#include <string.h>

#if defined(__AVX512F__)
enum { WIDTH = 64, CHAINS = 24 };
#elif defined(__AVX__)
enum { WIDTH = 32, CHAINS = 12 };
#elif defined(__aarch64__)
enum { WIDTH = 16, CHAINS = 24 };
#else
enum { WIDTH = 16, CHAINS = 12 };
#endif

/* One chain of dependent multiply-adds waits for its own result: only many independent ones keep every unit busy. They must
   fit into the registers, beside the two constants. Returns the number of operations; the sums go to *sink, or the compiler
   would leave the loop out. */
#define MULTIPLY_ADDS(NAME, REAL)                                                                   \
    double NAME(long rounds, REAL factor, REAL term, volatile REAL *sink)                           \
    {                                                                                               \
        typedef REAL vector __attribute__((vector_size(WIDTH)));                                    \
        const vector a = (vector){0} + factor, b = (vector){0} + term;                              \
        vector sum[CHAINS];                                                                         \
        for (int c = 0; c < CHAINS; c++) sum[c] = b * (REAL)c;                                      \
        for (long r = 0; r < rounds; r++)                                                           \
            _Pragma("GCC unroll 24") for (int c = 0; c < CHAINS; c++) sum[c] = sum[c] * a + b;      \
        for (int c = 0; c < CHAINS; c++) *sink += sum[c][0];                                        \
        return 2.0 * rounds * CHAINS * (WIDTH / sizeof(REAL));                                      \
    }

MULTIPLY_ADDS(multiply_adds_float32, float)
MULTIPLY_ADDS(multiply_adds_float64, double)

/* The empty asm claims to read and write all memory: each round must really be done. Both return the bytes moved. */
double triad(double *restrict y, const double *restrict a, const double *restrict b, long n, long rounds)
{
    for (long r = 0; r < rounds; r++) {
        const double s = (double)r;
        for (long i = 0; i < n; i++) y[i] = a[i] + s * b[i];
        __asm__ volatile("" ::: "memory");
    }
    return 3.0 * sizeof(double) * n * rounds;
}

double copy(double *restrict y, const double *restrict a, long n, long rounds)
{
    for (long r = 0; r < rounds; r++) {
        memcpy(y, a, n * sizeof(double));
        __asm__ volatile("" ::: "memory");
    }
    return 2.0 * sizeof(double) * n * rounds;
}
