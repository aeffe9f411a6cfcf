/* The thread pool and the scratch memory that every kernel shares. */
#ifndef CNN_THREADS_H
#define CNN_THREADS_H

#include <stddef.h>

typedef ptrdiff_t idx;   /* every size and index: long has 32 bits on Windows */

/* Works on items [begin, end). `worker` < parallel_workers(n, grain) tells concurrent calls apart (for their scratch). */
typedef void (*range_body)(void *arg, idx begin, idx end, int worker);

/* Splits [0, n) into contiguous ranges of at least `grain` items, one per thread. A call from inside another region, or
   beside one in another thread, runs serially. The result must not depend on where the ranges are cut. */
void parallel_for(idx n, idx grain, range_body body, void *arg);
int parallel_workers(idx n, idx grain);   /* upper bound of the number of ranges */
void cnn_split_finely(int yes);           /* for tests: whatever the grain, ranges of one item if there are threads for them */

/* The grain at which one item costs `work` simple operations: below some 16,000 a second thread does not pay. */
static inline idx grain_of(double work) { return work >= 16000 ? 1 : (idx)(16000 / (work + 1)) + 1; }

void cnn_set_num_threads(int n);
int cnn_get_num_threads(void);

/* Around every kernel call (the Python layer does it): until kernel_leave this thread computes in the default floating-point
   state, whatever the caller's is, and the number of threads, by which kernels size their scratch memory, stays what it is,
   whatever another thread sets. */
struct kernel_call { unsigned long long fp; int threads; };
struct kernel_call kernel_enter(void);
void kernel_leave(struct kernel_call before);

/* 64-byte aligned memory for one call, readable (not meaningful) up to SCRATCH_SLACK bytes past its end; NULL when there is none.
   Blocks are kept for the next call: fresh pages cost more than most kernels. What lies there may be anything, and integers read
   as reals are denormal, which slows multiplication down a hundred times on some processors: a lane whose result nobody wants
   is cleared all the same. */
enum { SCRATCH_SLACK = 128 };
void *scratch_take(size_t bytes);
void scratch_give(void *block);   /* NULL is fine */

enum { CNN_OK = 0, CNN_NO_MEMORY = -1 };   /* what kernels return */

#endif
