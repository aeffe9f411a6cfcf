/* What the steps share from step 3 on: the widest vector of this machine, and the scalar loop for what does not fill one. */
#include <stddef.h>

#if defined(__AVX512F__)
#define VECTOR_BYTES 64
#define REGISTERS 32   /* vector registers that an instruction can name */
#elif defined(__AVX__)
#define VECTOR_BYTES 32
#define REGISTERS 16
#elif defined(__aarch64__)
#define VECTOR_BYTES 16
#define REGISTERS 32
#else
#define VECTOR_BYTES 16
#define REGISTERS 16
#endif

#define VL ((int)(VECTOR_BYTES / sizeof(float)))   /* floats in a vector */

/* `vec` has +, - and * of its own. In memory it may start at any float, not only at multiples of its size. */
typedef float vec __attribute__((vector_size(VECTOR_BYTES)));
typedef float vec_in_memory __attribute__((vector_size(VECTOR_BYTES), aligned(4), may_alias));

static inline vec load(const float *p) { return *(const vec_in_memory *)p; }
static inline void store(float *p, vec v) { *(vec_in_memory *)p = v; }

static inline int min(int a, int b) { return a < b ? a : b; }

/* Step 2 on a piece of the matrices: m x n of C. A row of A starts lda floats after the one before, and so on. */
static inline void scalar_piece(int m, int n, int K, const float *a, int lda, const float *b, int ldb, float *c, int ldc) {
    for (int i = 0; i < m; i++) {
        for (int j = 0; j < n; j++) c[i * ldc + j] = 0;
        for (int k = 0; k < K; k++)
            for (int j = 0; j < n; j++) c[i * ldc + j] += a[i * lda + k] * b[k * ldb + j];
    }
}
