/* Random words and dropout: formulas in cnnlib/ops/dropout.py, the words in cnnlib/random.py.

   random_bits. A thread computes one block of Philox: four words that are neighbours in memory.

   dropout. A thread computes two blocks of Philox, that is the decisions on eight neighbours, and keeps them as one byte. The
   bytes of a thread block also go to shared memory: after a barrier its threads go through its 8 * THREADS elements in the order
   of memory, so that those of a warp read and write 32 neighbours, and look up their bits.

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

/* Elements of this thread block: number k of THREADS-wide strips. */
#define FOR_STRIPS(i, in_block)                                                         \
    for (int in_block = threadIdx.x; in_block < 8 * THREADS; in_block += THREADS)       \
        if (const idx i = (idx)blockIdx.x * (8 * THREADS) + in_block; i < n)

KERNEL dropout(idx n, idx k0, idx k1, idx stream, idx call, const idx *__restrict__ call_at, idx threshold, double scaling,
               const REAL *__restrict__ x, REAL *__restrict__ y, byte *__restrict__ keep) {
    __shared__ byte kept[THREADS];
    const REAL scale = (REAL)scaling;
    const word called = (word)(call_at ? *call_at : call);
    const idx eight = thread_number();
    word words[8];
    philox(words, 2 * (unsigned long long)eight, called, (word)stream, (word)k0, (word)k1);
    philox(words + 4, 2 * (unsigned long long)eight + 1, called, (word)stream, (word)k0, (word)k1);
    byte bits = 0;
    for (int k = 0; k < 8; k++)
        if (words[k] >= threshold && 8 * eight + k < n) bits |= (byte)(1 << k);
    if (8 * eight < n) keep[eight] = bits;
    kept[threadIdx.x] = bits;
    __syncthreads();
    FOR_STRIPS(i, place) y[i] = kept[place / 8] >> place % 8 & 1 ? x[i] * scale : 0;
}

KERNEL dropout_backward(idx n, double scaling, const REAL *__restrict__ dy, const byte *__restrict__ keep, REAL *__restrict__ dx) {
    const REAL scale = (REAL)scaling;
    FOR_STRIPS(i, place) dx[i] = keep[i / 8] >> i % 8 & 1 ? dy[i] * scale : 0;
}
