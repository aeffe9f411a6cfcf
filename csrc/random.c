/* Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011) and dropout. Words and masks equal those of
   cnnlib/random.py bit for bit: they are integer functions of key and position. */

typedef uint64_t vu __attribute__((vector_size(VECTOR_BYTES)));
typedef uint64_t vu_unaligned __attribute__((vector_size(VECTOR_BYTES), aligned(4), may_alias));
enum {
    LANES_OF_BLOCKS = VECTOR_BYTES / 8,
    WORDS_AT_ONCE = 4 * LANES_OF_BLOCKS,
    WORDS = 1024,   /* per chunk: a multiple of WORDS_AT_ONCE, small enough for the first-level cache */
};

/* Products of the low halves of each 64-bit lane. */
INLINE vu multiply_low(vu a, uint32_t b) {
#if VECTOR_BYTES == 64
    return (vu)_mm512_mul_epu32((__m512i)a, _mm512_set1_epi64(b));
#elif VECTOR_BYTES == 32
    return (vu)_mm256_mul_epu32((__m256i)a, _mm256_set1_epi64x(b));
#elif defined(__SSE2__)
    return (vu)_mm_mul_epu32((__m128i)a, _mm_set1_epi64x(b));
#else
    return (a & 0xFFFFFFFF) * (uint64_t)b;
#endif
}

/* WORDS_AT_ONCE words from block `first` on. Each lane is one block; its four words live in the low halves of c0 ... c3, and
   what is in the high halves is never read. */
INLINE void philox(uint32_t *words, uint64_t first, const struct random_key *key) {
    static const uint64_t lane[] = {0, 1, 2, 3, 4, 5, 6, 7};
    vu c0, c1 = {0}, c2 = key->call - (vu){0}, c3 = key->stream - (vu){0};
    memcpy(&c0, lane, sizeof c0);
    c0 += first;
    uint32_t k0 = (uint32_t)key->seed, k1 = (uint32_t)(key->seed >> 32);
#pragma GCC unroll 10
    for (int round = 0; round < 10; round++) {
        vu p0 = multiply_low(c0, 0xD2511F53), p1 = multiply_low(c2, 0xCD9E8D57);
        c0 = (p1 >> 32) ^ c1 ^ k0, c1 = p1;
        c2 = (p0 >> 32) ^ c3 ^ k1, c3 = p0;
        k0 += 0x9E3779B9, k1 += 0xBB67AE85;
    }
    vu a = (c0 & 0xFFFFFFFF) | (c1 << 32), b = (c2 & 0xFFFFFFFF) | (c3 << 32);   /* little-endian: words 0, 1 and 2, 3 */
#if VECTOR_BYTES == 64
    *(vu_unaligned *)words = __builtin_shufflevector(a, b, 0, 8, 1, 9, 2, 10, 3, 11);
    *(vu_unaligned *)(words + 16) = __builtin_shufflevector(a, b, 4, 12, 5, 13, 6, 14, 7, 15);
#elif VECTOR_BYTES == 32
    *(vu_unaligned *)words = __builtin_shufflevector(a, b, 0, 4, 1, 5);
    *(vu_unaligned *)(words + 8) = __builtin_shufflevector(a, b, 2, 6, 3, 7);
#else
    *(vu_unaligned *)words = __builtin_shufflevector(a, b, 0, 2);
    *(vu_unaligned *)(words + 4) = __builtin_shufflevector(a, b, 1, 3);
#endif
}

/* At least n words of the sequence, from word `first` (a multiple of 4) on; room for n rounded up to WORDS_AT_ONCE. */
INLINE void philox_fill(uint32_t *words, idx n, idx first, const struct random_key *key) {
    for (idx i = 0; i < n; i += WORDS_AT_ONCE) philox(words + i, (uint64_t)(first + i) / 4, key);
}

struct draw {
    idx n;
    struct random_key key;
    uint32_t threshold;
    REAL scale;
    const REAL *x;
    REAL *y;
    uint32_t *words;
    uint8_t *mask;
};

static void random_bits_chunks(void *arg, idx begin, idx end, int worker) {
    const struct draw *d = arg;
    (void)worker;
    for (idx chunk = begin; chunk < end; chunk++) {
        idx first = chunk * WORDS, n = MIN(WORDS, d->n - first), whole = n - n % WORDS_AT_ONCE;
        uint32_t rest[WORDS_AT_ONCE];
        philox_fill(d->words + first, whole, first, &d->key);
        if (whole < n) {
            philox(rest, (uint64_t)(first + whole) / 4, &d->key);
            memcpy(d->words + first + whole, rest, (size_t)(n - whole) * sizeof *rest);
        }
    }
}
static int random_bits(const struct random_key *key, idx n, uint32_t *words) {
    struct draw d = {.n = n, .key = *key, .words = words};
    parallel_for((n + WORDS - 1) / WORDS, grain_of(3.0 * WORDS), random_bits_chunks, &d);
    return CNN_OK;
}

/* VL words as lanes of integers, to be compared without sign. */
INLINE vi kept(const uint32_t *words, uint32_t threshold) {
#if REAL_IS_FLOAT
    typedef uint32_t lanes_of_words __attribute__((vector_size(VECTOR_BYTES)));
    lanes_of_words w;
    memcpy(&w, words, sizeof w);
    return (vi)(w >= threshold);
#else
    typedef uint32_t lanes_of_words __attribute__((vector_size(VECTOR_BYTES / 2)));
    lanes_of_words w;
    memcpy(&w, words, sizeof w);
    return (vi)(__builtin_convertvector(w, vi) >= (int64_t)threshold);
#endif
}

/* y at places i ... i + n - 1, n <= VL. */
INLINE void drop(const struct draw *d, idx i, idx n, vi mask) {
    store_part(d->y + i, choose(mask, load_or(d->x + i, n, 0) * d->scale, (vr){0}), n);
}
INLINE void draw_and_drop(const struct draw *d, const uint32_t *words, idx i, idx n) {
    const vi mask = kept(words, d->threshold);
    drop(d, i, n, mask), store_bits(d->mask, i, mask, n);
}
static void dropout_chunks(void *arg, idx begin, idx end, int worker) {
    const struct draw d = *(const struct draw *)arg;   /* a copy, as bytes are written: they might be part of the original */
    uint32_t words[WORDS];
    (void)worker;
    for (idx first = begin * WORDS, stop = MIN(end * WORDS, d.n); first < stop; first += WORDS) {
        const idx n = MIN(WORDS, stop - first);
        idx i = 0;
        philox_fill(words, n, first, &d.key);
        for (; i + VL <= n; i += VL) draw_and_drop(&d, words + i, first + i, VL);
        if (i < n) draw_and_drop(&d, words + i, first + i, n - i);
    }
}
static int dropout(const struct random_key *key, uint32_t threshold, double scale, idx n, const void *x, void *y, uint8_t *mask) {
    struct draw d = {.n = n, .key = *key, .threshold = threshold, .scale = (REAL)scale, .x = x, .y = y, .mask = mask};
    parallel_for((n + WORDS - 1) / WORDS, grain_of(4.0 * WORDS), dropout_chunks, &d);
    return CNN_OK;
}

static void dropout_backward_chunks(void *arg, idx begin, idx end, int worker) {
    const struct draw d = *(const struct draw *)arg;
    idx i = begin * WORDS, stop = MIN(end * WORDS, d.n);
    (void)worker;
    for (; i + VL <= stop; i += VL) drop(&d, i, VL, load_bits(d.mask, i, VL));
    if (i < stop) drop(&d, i, stop - i, load_bits(d.mask, i, stop - i));
}
static int dropout_backward(double scale, idx n, const void *dy, const uint8_t *mask, void *dx) {
    struct draw d = {.n = n, .scale = (REAL)scale, .x = dy, .y = dx, .mask = (uint8_t *)mask};
    parallel_for((n + WORDS - 1) / WORDS, grain_of(0.5 * WORDS), dropout_backward_chunks, &d);
    return CNN_OK;
}

static const struct dropout_kernels dropout_kernels = {
    .random_bits = random_bits, .dropout = dropout, .dropout_backward = dropout_backward};
