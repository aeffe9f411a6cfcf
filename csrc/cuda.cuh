/* What the CUDA sources share. REAL is float or double: a source is compiled once for each, by NVRTC at first use, with nothing
   included but this file. Kernels are extern "C"; of numbers they take long long and double only, which is what CuPy makes of
   Python's int and float.

   Reductions add in an order that the shape alone decides: results are equal bit for bit from run to run. No float is ever
   added atomically. */

#define KERNEL extern "C" __global__ void

typedef long long idx;
typedef unsigned char byte;
typedef unsigned int word;

#define INFINITE ((REAL)__longlong_as_double(0x7ff0000000000000LL))
#define CEIL_DIV(a, b) (((a) + (b) - 1) / (b))

/* The place of this thread when a grid of one dimension counts through. */
static __device__ __forceinline__ idx thread_number() { return (idx)blockIdx.x * blockDim.x + threadIdx.x; }
static __device__ __forceinline__ idx thread_count() { return (idx)gridDim.x * blockDim.x; }

/* i / n of numbers that are not negative. A GPU divides by a routine, which is long for 64 bits and rarely needs them. */
static __device__ __forceinline__ idx divided(idx i, idx n) { return (i | n) >> 32 ? i / n : (idx)((word)i / (word)n); }

/* A number as three digits, the last two of bases B and C: a pixel (image, h, w), a tap (channel, i, j). */
struct digits { int a, b, c; };
static __device__ __forceinline__ digits digits_of(idx number, int B, int C) {
    const idx ab = divided(number, C), a = divided(ab, B);
    return {(int)a, (int)(ab - a * B), (int)(number - ab * C)};
}

/* ---- reductions along x ----

   A block is blockDim.y groups of blockDim.x threads. blockDim.x is 32, so that each group is one warp, or blockDim.y is 1 and
   blockDim.x any multiple of 32. Every thread of the group gets the result. All threads of the block must come here. */

static __device__ __forceinline__ REAL larger(REAL a, REAL b) { return a > b || a != a ? a : b; }   /* NaN is largest */

/* Inside a warp, halves exchange: after five steps every lane has combined the same pairs. Then each warp leaves its result in
   shared memory, and every thread combines those in their order. */
#define GROUP_REDUCTION(name, combine)                                                      \
    static __device__ REAL name(REAL v) {                                                   \
        __shared__ REAL of_warp[32];                                                        \
        for (int half = 16; half > 0; half /= 2) {                                          \
            const REAL other = __shfl_xor_sync(0xffffffff, v, half);                        \
            v = combine;                                                                    \
        }                                                                                   \
        if (blockDim.x == 32) return v;                                                     \
        __syncthreads(); /* the previous reduction has been read */                         \
        if (threadIdx.x % 32 == 0) of_warp[threadIdx.x / 32] = v;                           \
        __syncthreads();                                                                    \
        v = of_warp[0];                                                                     \
        for (int warp = 1; warp < (int)blockDim.x / 32; warp++) {                           \
            const REAL other = of_warp[warp];                                               \
            v = combine;                                                                    \
        }                                                                                   \
        return v;                                                                           \
    }

GROUP_REDUCTION(group_sum, v + other)
GROUP_REDUCTION(group_max, larger(v, other))

/* ---- random words: Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011) ----

   Words 4 block ... 4 block + 3 of the sequence that seed, stream and call name: equal, bit for bit, to cnnlib/random.py. */

static __device__ __forceinline__ void philox(word words[4], unsigned long long block, word call, word stream, word k0, word k1) {
    word c0 = (word)block, c1 = (word)(block >> 32), c2 = call, c3 = stream;
    for (int round = 0; round < 10; round++) {
        const unsigned long long p0 = (unsigned long long)c0 * 0xD2511F53u, p1 = (unsigned long long)c2 * 0xCD9E8D57u;
        c0 = (word)(p1 >> 32) ^ c1 ^ k0, c1 = (word)p1;
        c2 = (word)(p0 >> 32) ^ c3 ^ k1, c3 = (word)p0;
        k0 += 0x9E3779B9u, k1 += 0xBB67AE85u;
    }
    words[0] = c0, words[1] = c1, words[2] = c2, words[3] = c3;
}
