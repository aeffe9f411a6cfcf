/* CUDA C++ on the CPU, for tests: a .cu file is compiled by the C++ compiler behind this header, and emulate() runs a grid.

   Blocks run one after the other, in a shuffled order. The threads of a block are fibers: each has a stack of its own and runs
   until it waits at a barrier (__syncthreads) or a shuffle, or ends; then the next one of its warp runs. A warp goes on as far as
   it gets before the next one starts; warps and lanes take turns in orders that are shuffled anew after each barrier. So what a
   thread reads without a barrier after another's write is likely to be missing, or overwritten. Shared memory is full of NaN when
   a block starts. Errors end the run with a text: a barrier that not all threads of the block reach, a shuffle that not all of the
   warp reach.

   A thread that waits for another block sleeps (__nanosleep). In a cooperative launch all blocks are under way: one runs until all
   of its threads wait, sleep or have ended, as far ahead as it gets, then another, in an order that is shuffled for each turn;
   shared memory changes with the block. Blocks that only wait for each other are an error, as is sleeping in any other launch. */

#include <math.h>
#include <setjmp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <ucontext.h>

#include <algorithm>
#include <random>
#include <string>
#include <type_traits>
#include <vector>

/* ---- the language ---- */

#define __global__
#define __device__
#define __host__
#define __constant__ static
#define __forceinline__ inline
#define __noinline__ __attribute__((noinline))
#define __launch_bounds__(...)
#define __shared__ static __attribute__((section("shared_memory")))
#define __align__(n) __attribute__((aligned(n)))

struct dim3 { unsigned x = 1, y = 1, z = 1; };
static dim3 gridDim, blockDim, blockIdx, threadIdx;
static const int warpSize = 32;

struct alignas(8) float2 { float x, y; };
struct alignas(16) float4 { float x, y, z, w; };
struct alignas(16) double2 { double x, y; };
struct alignas(16) uint4 { unsigned x, y, z, w; };
static inline float2 make_float2(float x, float y) { return {x, y}; }
static inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
static inline double2 make_double2(double x, double y) { return {x, y}; }
static inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }

template <class T> static T min(T a, T b) { return b < a ? b : a; }
template <class T> static T max(T a, T b) { return a < b ? b : a; }
static inline float rsqrt(float x) { return 1 / sqrtf(x); }
static inline double rsqrt(double x) { return 1 / sqrt(x); }
static inline float rsqrtf(float x) { return rsqrt(x); }
static inline double __longlong_as_double(long long bits) { double x; memcpy(&x, &bits, sizeof x); return x; }
static inline float __int_as_float(int bits) { float x; memcpy(&x, &bits, sizeof x); return x; }
static inline int __popc(unsigned bits) { return __builtin_popcount(bits); }
static inline int __clz(int bits) { return bits ? __builtin_clz((unsigned)bits) : 32; }
static inline int __ffs(int bits) { return __builtin_ffs(bits); }
static inline void __threadfence() {}
template <class T> static T __ldg(const T *p) { return *p; }

/* Threads switch at barriers only, so that these are atomic. Only integers: sums of floats would depend on the order. */
#define ATOMIC(name, result)                                                        \
    template <class T> static T name(T *p, typename std::common_type<T>::type v) {  \
        static_assert(std::is_integral<T>::value, "atomics of integers only");      \
        const T old = *p;                                                           \
        *p = result;                                                                \
        return old;                                                                 \
    }
ATOMIC(atomicAdd, (T)(old + v))
ATOMIC(atomicOr, (T)(old | v))
ATOMIC(atomicMin, std::min(old, v))
ATOMIC(atomicMax, std::max(old, v))

/* ---- fibers ---- */

namespace emulated {

enum state { READY, AT_BARRIER, AT_SHUFFLE, ASLEEP, ENDED };
struct fiber {
    jmp_buf context;
    char *stack = nullptr;
    state now = ENDED;
    dim3 place;
    uint64_t slot[2];   /* what it shows the other lanes, in turns: nobody shows the next but one before all have read this */
    int shuffles = 0;
};

static const size_t STACK = 128 << 10;
static std::vector<fiber> fibers;   /* of one block, used again by the next; of all, where they are under way together */
static size_t current, count, all;  /* threads of a block, and of those under way */
static bool moved;                  /* a thread did more than to fall asleep again */
static jmp_buf scheduler;
static void (*body)(void **);
static void **arguments;
static std::string error;
static std::mt19937 shuffler;

static void run_fiber() {
    for (;;) {
        body(arguments);
        fibers[current].now = ENDED;
        if (!_setjmp(fibers[current].context)) _longjmp(scheduler, 1);
    }
}

static void __attribute__((noinline)) wait_as(state s) {
    fiber &me = fibers[current];
    me.now = s;
    if (!_setjmp(me.context)) _longjmp(scheduler, 1);
}

static void start_fibers(size_t n) {
    static ucontext_t here, there;
    fibers.resize(std::max(n, fibers.size()));
    for (size_t i = 0; i < n; i++) {
        if (fibers[i].stack) continue;
        fibers[i].stack = (char *)malloc(STACK);
        getcontext(&there);
        there.uc_stack.ss_sp = fibers[i].stack, there.uc_stack.ss_size = STACK, there.uc_link = nullptr;
        makecontext(&there, [] {
            if (!_setjmp(fibers[current].context)) _longjmp(scheduler, 1);
            run_fiber();
        }, 0);
        current = i;
        if (!_setjmp(scheduler)) swapcontext(&here, &there);   /* until its first line: from there on, jumps are enough */
    }
}

static void resume(size_t i) {
    current = i;
    threadIdx = fibers[i].place;
    if (!_setjmp(scheduler)) _longjmp(fibers[i].context, 1);
    moved |= fibers[i].now != ASLEEP;
}

static size_t count_of(state s, size_t begin, size_t end) {
    size_t n = 0;
    for (size_t i = begin; i < end; i++) n += fibers[i].now == s;
    return n;
}
static void release(state s, size_t begin, size_t end) {
    for (size_t i = begin; i < end; i++)
        if (fibers[i].now == s) fibers[i].now = READY;
}

/* Runs a warp until all of its threads wait at a barrier, sleep or have ended, as far ahead of the other warps as it gets. */
static void run_warp(size_t begin, size_t end) {
    std::vector<size_t> order;
    for (size_t i = begin; i < end; i++) order.push_back(i);
    for (;;) {
        std::shuffle(order.begin(), order.end(), shuffler);
        for (size_t i : order)
            if (fibers[i].now == READY) resume(i);
        const size_t here = count_of(AT_SHUFFLE, begin, end);
        if (here == 0 || count_of(ASLEEP, begin, end)) return;
        if (here < end - begin) {
            error = "a shuffle that not all lanes of a warp reach";
            return;
        }
        release(AT_SHUFFLE, begin, end);
    }
}

extern "C" char __start_shared_memory[] __attribute__((weak, visibility("hidden")));
extern "C" char __stop_shared_memory[] __attribute__((weak, visibility("hidden")));

struct block {
    dim3 place;
    size_t begin;   /* its first fiber */
    bool ended = false;
    std::vector<size_t> warps;
    std::vector<char> shared;

    block(size_t number, size_t begin) : begin(begin), shared((size_t)(__stop_shared_memory - __start_shared_memory), (char)0xFF) {
        place.x = (unsigned)(number % gridDim.x), place.y = (unsigned)(number / gridDim.x % gridDim.y);
        place.z = (unsigned)(number / gridDim.x / gridDim.y);
        for (size_t i = 0; i < count; i++) {
            if (i % 32 == 0) warps.push_back(begin + i);
            fiber &f = fibers[begin + i];
            f.now = READY, f.shuffles = 0;
            f.place.x = (unsigned)i % blockDim.x;
            f.place.y = (unsigned)i / blockDim.x % blockDim.y;
            f.place.z = (unsigned)i / blockDim.x / blockDim.y;
        }
    }

    /* Until all of its threads have ended, or none can go on before another block does. */
    void run() {
        const size_t end = begin + count;
        blockIdx = place;
        std::copy(shared.begin(), shared.end(), __start_shared_memory);
        release(ASLEEP, begin, end);
        for (;;) {
            std::shuffle(warps.begin(), warps.end(), shuffler);
            for (size_t warp : warps) {
                run_warp(warp, std::min(end, warp + 32));
                if (!error.empty()) return;
            }
            if (count_of(ASLEEP, begin, end)) break;
            const size_t waiting = count_of(AT_BARRIER, begin, end);
            ended = waiting == 0;
            if (ended) break;
            if (waiting < count) {
                error = "__syncthreads() that not all threads of the block reach";
                return;
            }
            release(AT_BARRIER, begin, end);
        }
        std::copy_n(__start_shared_memory, shared.size(), shared.begin());
    }
};

static void run_one_by_one(const std::vector<size_t> &order) {
    start_fibers(all = count);
    for (size_t number : order) {
        block b(number, 0);
        b.run();
        if (error.empty() && !b.ended) error = "a block waits for another, which need not be on the GPU: launch cooperatively";
        if (!error.empty()) return;
    }
}

static void run_together(std::vector<size_t> order) {
    if (count % 32) {
        error = "cooperative launches are emulated with whole warps only";
        return;
    }
    start_fibers(all = count * order.size());
    std::vector<block> blocks;
    for (size_t number = 0; number < order.size(); number++) blocks.emplace_back(number, number * count);
    while (!order.empty()) {
        moved = false;
        std::shuffle(order.begin(), order.end(), shuffler);
        for (size_t number : order) {
            blocks[number].run();
            if (!error.empty()) return;
        }
        order.erase(std::remove_if(order.begin(), order.end(), [&](size_t n) { return blocks[n].ended; }), order.end());
        if (!moved) {
            error = "blocks wait for each other for ever";
            return;
        }
    }
}

static const char *run_grid(const unsigned *grid, const unsigned *block, unsigned seed, bool cooperative) {
    gridDim = {grid[0], grid[1], grid[2]}, blockDim = {block[0], block[1], block[2]};
    count = (size_t)block[0] * block[1] * block[2];
    shuffler.seed(seed);
    error.clear();
    std::vector<size_t> order((size_t)grid[0] * grid[1] * grid[2]);
    for (size_t i = 0; i < order.size(); i++) order[i] = i;
    std::shuffle(order.begin(), order.end(), shuffler);
    cooperative ? run_together(order) : run_one_by_one(order);
    return error.empty() ? nullptr : error.c_str();
}

/* ---- arguments: each is 8 bytes and the letter of its type, as NumPy's; of a pointer, what it points to ---- */

template <class T> struct letter;
#define LETTER(type, c) template <> struct letter<type> { static const char value = c; };
LETTER(float, 'f') LETTER(double, 'd') LETTER(long long, 'q') LETTER(unsigned long long, 'Q') LETTER(long, 'q')
LETTER(void, 'v') LETTER(unsigned long, 'Q') LETTER(int, 'i') LETTER(unsigned, 'I') LETTER(unsigned char, 'B') LETTER(signed char, 'b')

/* A type as CuPy would have to give it: "*f" an array of floats, "q", "d". "0": a null pointer. */
template <class T> static std::string wanted() {
    if constexpr (std::is_pointer<T>::value) {
        using P = typename std::remove_cv<typename std::remove_pointer<T>::type>::type;
        return std::string("*") + letter<P>::value;
    } else return std::string(1, letter<T>::value);
}
template <class T> static void check(int i, const char *const *given) {
    const std::string w = wanted<T>(), g = given[i];
    if (w == g || (w == "*v" && g[0] == '*') || (w[0] == '*' && g == "0") || (w == "q" && g == "0")) return;
    error += "argument " + std::to_string(i) + " must be " + w + ", got " + g + "; ";
}

template <class... A, size_t... I>
static const char *launch(void (*kernel)(A...), std::index_sequence<I...>, const unsigned *grid, const unsigned *block, void **values,
                          const char *const *given, int n_given, unsigned seed, bool cooperative) {
    static void (*run)(A...);
    run = kernel;
    error.clear();
    if (n_given != (int)sizeof...(A)) {
        error = "takes " + std::to_string(sizeof...(A)) + " arguments, got " + std::to_string(n_given);
        return error.c_str();
    }
    (check<A>((int)I, given), ...);
    if (!error.empty()) return error.c_str();
    arguments = values;
    body = [](void **a) { run(*(typename std::remove_cv<A>::type *)a[I]...); };
    return run_grid(grid, block, seed, cooperative);
}

}  // namespace emulated

#define __syncthreads() emulated::wait_as(emulated::AT_BARRIER)
#define __nanosleep(...) emulated::wait_as(emulated::ASLEEP)
#define __syncwarp(...) emulated::wait_as(emulated::AT_SHUFFLE)

/* What the given lane shows; a lane outside of the warp leaves the value as it was. Whole warps only. */
template <class T> static T emulated_shuffle(unsigned mask, T v, int lane) {
    using namespace emulated;
    static_assert(sizeof(T) <= 8, "");
    if (mask != 0xffffffffu) error = "shuffles of parts of a warp are not emulated";
    const size_t warp = current / 32 * 32;
    const int turn = fibers[current].shuffles++ % 2;
    memcpy(&fibers[current].slot[turn], &v, sizeof v);
    wait_as(AT_SHUFFLE);
    if (lane >= 0 && lane < 32 && warp + (size_t)lane < all) memcpy(&v, &fibers[warp + (size_t)lane].slot[turn], sizeof v);
    return v;
}
#define LANE ((int)(emulated::current % 32))
/* Of widths below 32 (a power of two), each part of the warp is a warp of its own. */
template <class T> static T __shfl_xor_sync(unsigned mask, T v, int with, int width = 32) {
    (void)width;
    return emulated_shuffle(mask, v, LANE ^ with);
}
template <class T> static T __shfl_down_sync(unsigned mask, T v, int by, int width = 32) {
    return emulated_shuffle(mask, v, LANE % width + by < width ? LANE + by : LANE);
}
template <class T> static T __shfl_up_sync(unsigned mask, T v, int by, int width = 32) {
    return emulated_shuffle(mask, v, LANE % width >= by ? LANE - by : LANE);
}
template <class T> static T __shfl_sync(unsigned mask, T v, int lane, int width = 32) {
    return emulated_shuffle(mask, v, LANE / width * width + lane % width);
}
static inline unsigned __ballot_sync(unsigned mask, int set) {
    unsigned all = (unsigned)(set != 0) << LANE;
    for (int half = 16; half > 0; half /= 2) all |= __shfl_xor_sync(mask, all, half);
    return all;
}

/* EMULATE(relu): the entry that Python calls. */
#define EMULATE(name)                                                                                                    \
    extern "C" __attribute__((visibility("default"))) const char *emulate_##name(                                       \
        const unsigned *grid, const unsigned *block, void **values, const char *const *given, int n, unsigned seed,     \
        int cooperative) {                                                                                              \
        return emulated::launch_of(name, grid, block, values, given, n, seed, cooperative != 0);                        \
    }
namespace emulated {
template <class... A>
static const char *launch_of(void (*kernel)(A...), const unsigned *grid, const unsigned *block, void **values, const char *const *given,
                             int n, unsigned seed, bool cooperative) {
    return launch(kernel, std::index_sequence_for<A...>(), grid, block, values, given, n, seed, cooperative);
}
}  // namespace emulated
