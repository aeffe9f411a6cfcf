/* Random words and dropout: formulas in cnnlib/ops/dropout.py, the words in cnnlib/random.py.

   random_bits. A thread computes one block of Philox: four words that are neighbours in memory.

   dropout. A thread computes two blocks of Philox, that is the decisions on eight neighbours, and keeps them as one byte. The
   bytes of a thread block also go to shared memory: after a barrier its threads look up the bits of its 8 * THREADS elements in the
   order of memory, so that those of a warp read and write 32 neighbours. All eight reads of a thread are under way before: they
   do not wait for each other, nor for the random words.

   The call number may lie in device memory, at call_at: then a recorded graph draws other words each time it is replayed. */

#include "cuda.cuh"

enum { THREADS = 256 };

KERNEL random_bits(idx n, idx k0, idx k1, idx stream, idx call, const idx *__restrict__ call_at, word *__restrict__ words) {
    const idx block = thread_number();
    word four[4];
    if (4 * block >= n) return;
    philox(four, (unsigned long long)block, (word)(call_at ? *call_at : call), (word)stream, (word)k0, (word)k1);
    for (int k = 0; k < 4; k++)
        if (4 * block + k < n) words[4 * block + k] = four[k];
}

/* This thread's element in each strip of THREADS of the block's: number k, at `place` of the block, at i of the array. */
#define FOR_STRIPS(k, place, i)                                                         \
    _Pragma("unroll") for (int k = 0, place = threadIdx.x; k < 8; k++, place += THREADS)   \
        if (const idx i = (idx)blockIdx.x * (8 * THREADS) + place; i < n)

KERNEL dropout(idx n, idx k0, idx k1, idx stream, idx call, const idx *__restrict__ call_at, idx threshold, double scaling,
               const REAL *__restrict__ x, REAL *__restrict__ y, byte *__restrict__ keep) {
    __shared__ byte kept[THREADS];
    const REAL scale = (REAL)scaling;
    const word called = (word)(call_at ? *call_at : call);
    const idx eight = thread_number();
    REAL read[8];
    word words[8];
    FOR_STRIPS(k, place, i) read[k] = x[i];
    philox(words, 2 * (unsigned long long)eight, called, (word)stream, (word)k0, (word)k1);
    philox(words + 4, 2 * (unsigned long long)eight + 1, called, (word)stream, (word)k0, (word)k1);
    byte bits = 0;
    for (int k = 0; k < 8; k++)
        if (words[k] >= threshold && 8 * eight + k < n) bits |= (byte)(1 << k);
    if (8 * eight < n) keep[eight] = bits;
    kept[threadIdx.x] = bits;
    __syncthreads();
    FOR_STRIPS(k, place, i) y[i] = kept[place / 8] >> place % 8 & 1 ? read[k] * scale : 0;
}

KERNEL dropout_backward(idx n, double scaling, const REAL *__restrict__ dy, const byte *__restrict__ keep, REAL *__restrict__ dx) {
    const REAL scale = (REAL)scaling;
    REAL read[8];
    byte bits[8];
    FOR_STRIPS(k, place, i) read[k] = dy[i], bits[k] = keep[i / 8];
    FOR_STRIPS(k, place, i) dx[i] = bits[k] >> place % 8 & 1 ? read[k] * scale : 0;
}
