/* Our own small pool, because two pools that spin beside each other ruin both, and because libgomp hangs in a forked child.
   Every worker has a mailbox. It looks into it for about a millisecond (longer than Python takes from one kernel of a training
   step to the next), soon letting others have the core between two looks, then parks on a condition variable. A job that its
   worker has not begun when the caller is done, the caller takes back: a late worker (parked, or its core busy with something
   else) costs no waiting. */
#define _GNU_SOURCE
#include "threads.h"

#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- the floating-point state: rounding, flushing of denormals, traps ---- */

#if defined(__SSE2__)
#include <xmmintrin.h>
enum { DEFAULT_FP = 0x1F80 };
static unsigned long long get_fp(void) { return _mm_getcsr(); }
static void set_fp(unsigned long long state) { _mm_setcsr((unsigned)state); }
#elif defined(__aarch64__)
enum { DEFAULT_FP = 0 };
static unsigned long long get_fp(void) {
    unsigned long long state;
    __asm__ volatile("mrs %0, fpcr" : "=r"(state));
    return state;
}
static void set_fp(unsigned long long state) { __asm__ volatile("msr fpcr, %0" : : "r"(state)); }
#else
enum { DEFAULT_FP = 0 };
static unsigned long long get_fp(void) { return DEFAULT_FP; }
static void set_fp(unsigned long long state) { (void)state; }
#endif

static _Thread_local int threads_of_call;   /* 0: outside of kernel calls */

struct kernel_call kernel_enter(void) {
    struct kernel_call before = {get_fp(), threads_of_call};
    set_fp(DEFAULT_FP);
    threads_of_call = cnn_get_num_threads();
    return before;
}
void kernel_leave(struct kernel_call before) {
    threads_of_call = before.threads;
    set_fp(before.fp);
}

#ifdef _WIN32

void parallel_for(idx n, idx grain, range_body body, void *arg) {
    (void)grain;
    if (n > 0) body(arg, 0, n, 0);
}
int parallel_workers(idx n, idx grain) { (void)n, (void)grain; return 1; }
void cnn_split_finely(int yes) { (void)yes; }
void cnn_set_num_threads(int n) { (void)n; }
int cnn_get_num_threads(void) { return 1; }

#else

#include <pthread.h>
#include <sched.h>
#include <unistd.h>

enum { MAX_THREADS = 256, SPINS = 2000, YIELDS = 4000 };

struct mailbox {
    _Alignas(64) atomic_uint posted;   /* jobs posted so far: what the worker waits for */
    atomic_int open;                   /* whoever turns it from 1 to 0 does the job */
    atomic_int asleep;
    pthread_mutex_t lock;
    pthread_cond_t wake;
    range_body body;
    void *arg;
    idx begin, end;
    int worker;
};

static struct mailbox mailboxes[MAX_THREADS];
static int started = 1;                  /* threads of the pool, the caller being the first */
static atomic_int wanted;                /* 0: not asked for yet */
static atomic_int finely;
static atomic_flag busy = ATOMIC_FLAG_INIT;
static atomic_int unfinished, caller_asleep;
static pthread_mutex_t finish_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t finished = PTHREAD_COND_INITIALIZER;

/* While a thread waits for another one: first on its core, then it lets others have the core. */
static inline void relax(int turn) {
    if (turn >= SPINS) {
        sched_yield();
        return;
    }
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

static void wait_for_job(struct mailbox *box, unsigned seen) {
    for (int i = 0; i < SPINS + YIELDS; relax(i++))
        if (atomic_load_explicit(&box->posted, memory_order_acquire) != seen) return;
    pthread_mutex_lock(&box->lock);
    atomic_store(&box->asleep, 1);
    while (atomic_load(&box->posted) == seen) pthread_cond_wait(&box->wake, &box->lock);
    atomic_store(&box->asleep, 0);
    pthread_mutex_unlock(&box->lock);
}

static void post_job(struct mailbox *box, range_body body, void *arg, idx begin, idx end, int worker) {
    box->body = body, box->arg = arg, box->begin = begin, box->end = end, box->worker = worker;
    atomic_store(&box->open, 1);
    atomic_fetch_add(&box->posted, 1);
    if (!atomic_load(&box->asleep)) return;
    pthread_mutex_lock(&box->lock);
    pthread_cond_signal(&box->wake);
    pthread_mutex_unlock(&box->lock);
}

static void report_finished(void) {
    if (atomic_fetch_sub(&unfinished, 1) != 1 || !atomic_load(&caller_asleep)) return;
    pthread_mutex_lock(&finish_lock);
    pthread_cond_signal(&finished);
    pthread_mutex_unlock(&finish_lock);
}

static void wait_until_finished(void) {
    for (int i = 0; i < SPINS + YIELDS; relax(i++))
        if (!atomic_load_explicit(&unfinished, memory_order_acquire)) return;
    pthread_mutex_lock(&finish_lock);
    atomic_store(&caller_asleep, 1);
    while (atomic_load(&unfinished)) pthread_cond_wait(&finished, &finish_lock);
    atomic_store(&caller_asleep, 0);
    pthread_mutex_unlock(&finish_lock);
}

static int do_job(struct mailbox *box) {
    if (!atomic_exchange(&box->open, 0)) return 0;
    box->body(box->arg, box->begin, box->end, box->worker);
    return 1;
}

static void *work(void *mailbox) {
    struct mailbox *box = mailbox;
    set_fp(DEFAULT_FP);   /* a new thread has that of its creator */
    for (unsigned seen = 0;;) {
        wait_for_job(box, seen);
        seen = atomic_load(&box->posted);
        if (do_job(box)) report_finished();
    }
    return NULL;
}

/* Only the calling thread survives a fork: forget the others, and locks that they may have held. */
static void start_over_in_child(void) {
    started = 1;
    atomic_flag_clear(&busy);
    atomic_store(&unfinished, 0);
    atomic_store(&caller_asleep, 0);
    pthread_mutex_init(&finish_lock, NULL);
    pthread_cond_init(&finished, NULL);
}

static void start_workers(int threads) {
    static int registered;
    if (!registered) registered = 1, pthread_atfork(NULL, NULL, start_over_in_child);
    for (; started < threads; started++) {
        struct mailbox *box = &mailboxes[started];
        memset(box, 0, sizeof *box);
        pthread_mutex_init(&box->lock, NULL);
        pthread_cond_init(&box->wake, NULL);
        pthread_t thread;
        if (pthread_create(&thread, NULL, work, box)) return;   /* go on with those that there are */
        pthread_detach(thread);
    }
}

void cnn_split_finely(int yes) { atomic_store(&finely, yes); }

int parallel_workers(idx n, idx grain) {
    if (atomic_load_explicit(&finely, memory_order_relaxed)) grain = 1;
    idx ranges = n / (grain > 0 ? grain : 1), threads = cnn_get_num_threads();
    return ranges < 1 ? 1 : (int)(ranges < threads ? ranges : threads);
}

void parallel_for(idx n, idx grain, range_body body, void *arg) {
    if (n <= 0) return;
    int threads = parallel_workers(n, grain);
    if (threads == 1 || atomic_flag_test_and_set(&busy)) {
        body(arg, 0, n, 0);
        return;
    }
    start_workers(threads);
    if (threads > started) threads = started;
    atomic_store(&unfinished, threads - 1);
    for (int t = 1; t < threads; t++) post_job(&mailboxes[t], body, arg, n * t / threads, n * (t + 1) / threads, t);
    body(arg, 0, n / threads, 0);
    for (int t = threads - 1; t >= 1; t--)
        if (do_job(&mailboxes[t])) atomic_fetch_sub(&unfinished, 1);
    wait_until_finished();
    atomic_flag_clear(&busy);
}

/* ---- how many threads ---- */

static int limit_from(const char *path, const char *format) {   /* "quota period"; no limit: "max period" or -1 */
    double quota = 0, period = 0;
    FILE *file = fopen(path, "r");
    if (!file) return MAX_THREADS;
    int read = fscanf(file, format, &quota, &period);
    fclose(file);
    if (read == 1) {   /* cgroup v1 keeps the period in a second file */
        char other[512];
        snprintf(other, sizeof other, "%.*scpu.cfs_period_us", (int)(strrchr(path, '/') + 1 - path), path);
        if (!(file = fopen(other, "r"))) return MAX_THREADS;
        read += fscanf(file, "%lf", &period);
        fclose(file);
    }
    if (read < 2 || quota <= 0 || period <= 0) return MAX_THREADS;
    int whole = (int)(quota / period);
    return whole < 1 ? 1 : whole;
}

static int least(int a, int b) { return a < b ? a : b; }

static int cgroup_limit(void) {
    int limit = least(limit_from("/sys/fs/cgroup/cpu.max", "%lf %lf"),
                      limit_from("/sys/fs/cgroup/cpu/cpu.cfs_quota_us", "%lf"));
    FILE *file = fopen("/proc/self/cgroup", "r");
    char line[256], path[512];
    while (file && fgets(line, sizeof line, file)) {
        if (strncmp(line, "0::/", 4)) continue;
        line[strcspn(line, "\n")] = 0;
        for (char *end; (end = strrchr(line + 3, '/')) && end[1]; *end = 0) {   /* a limit may sit on any ancestor */
            snprintf(path, sizeof path, "/sys/fs/cgroup%s/cpu.max", line + 3);
            limit = least(limit, limit_from(path, "%lf %lf"));
        }
    }
    if (file) fclose(file);
    return limit;
}

static int default_threads(void) {
    int threads = (int)sysconf(_SC_NPROCESSORS_ONLN);
#ifdef __linux__
    cpu_set_t set;
    if (!sched_getaffinity(0, sizeof set, &set)) threads = CPU_COUNT(&set);
#endif
    threads = least(threads, cgroup_limit());
    const char *asked = getenv("OMP_NUM_THREADS");
    if (asked && atoi(asked) > 0) threads = least(threads, atoi(asked));
    return threads < 1 ? 1 : least(threads, MAX_THREADS);
}

void cnn_set_num_threads(int n) { atomic_store(&wanted, n < 1 ? 1 : least(n, MAX_THREADS)); }

int cnn_get_num_threads(void) {
    if (threads_of_call) return threads_of_call;
    if (!atomic_load(&wanted)) cnn_set_num_threads(default_threads());
    return atomic_load(&wanted);
}

#endif

/* ---- scratch memory ---- */

enum { SLOTS = 8, HEADER = 64 };
#if defined(__SANITIZE_ADDRESS__)
static const size_t KEEP_AT_MOST = 0, AT_LEAST = 1;   /* fresh blocks of the very size that was asked for: what is past it is seen */
#else
static const size_t KEEP_AT_MOST = (size_t)64 << 20, AT_LEAST = 65536;
#endif
static _Atomic(void *) slots[SLOTS];

/* The header, in front of what the caller sees, remembers the capacity and what malloc returned. */
struct header { size_t capacity; void *base; };
static struct header *header_of(void *block) { return (struct header *)((char *)block - HEADER); }

static void *fresh_block(size_t bytes) {
    if (bytes > PTRDIFF_MAX - 4096) return NULL;
    char *base = malloc(bytes + HEADER + 64 + SCRATCH_SLACK);
    if (!base) return NULL;
    char *block = (char *)(((size_t)base + HEADER + 63) & ~(size_t)63);
    *header_of(block) = (struct header){bytes, base};
    return block;
}

void *scratch_take(size_t bytes) {
    for (int i = 0; i < SLOTS; i++) {
        if (!atomic_load_explicit(&slots[i], memory_order_relaxed)) continue;
        void *block = atomic_exchange(&slots[i], NULL);
        if (block && header_of(block)->capacity >= bytes) return block;
        if (block) scratch_give(block);
    }
    return fresh_block(bytes < AT_LEAST ? AT_LEAST : bytes);
}

void scratch_give(void *block) {
    if (!block) return;
    if (header_of(block)->capacity <= KEEP_AT_MOST)
        for (int i = 0; i < SLOTS; i++) {
            void *empty = NULL;
            if (atomic_compare_exchange_strong(&slots[i], &empty, block)) return;
        }
    free(header_of(block)->base);
}
