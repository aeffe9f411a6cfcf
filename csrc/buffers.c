/* Memory of the arrays that kernels return. A fresh page costs about as much as writing it twice: the kernel must clear it and
   enter it into the page table. A training step asks for the same sizes again and again, so blocks that arrays give back
   are kept for the next ones, up to a limit.

   NumPy calls this through its allocator interface (NEP 49), always with the GIL held: no lock is needed, and a forked child
   finds the list whole. */
#include "buffers.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#ifdef __linux__
#include <sys/mman.h>
#endif

struct block {   /* in front of what the caller sees */
    size_t capacity;
    void *base;              /* what malloc returned */
    struct block *older, *newer;
};
enum { ALIGNMENT = 64, PAGE = 4096 };
_Static_assert(sizeof(struct block) <= ALIGNMENT, "the header fits in front of an aligned block");

static struct block idle = {.older = &idle, .newer = &idle};   /* a ring: idle.older is the block given back last */
static size_t idle_bytes, limit = (size_t)512 << 20;

static struct block *block_of(void *data) { return (struct block *)((char *)data - ALIGNMENT); }
static void *data_of(struct block *b) { return (char *)b + ALIGNMENT; }

static void unlink_block(struct block *b) {
    b->older->newer = b->newer, b->newer->older = b->older;
    idle_bytes -= b->capacity;
}

static void shrink_to(size_t bytes) {
    while (idle_bytes > bytes) {
        struct block *oldest = idle.newer;
        unlink_block(oldest);
        free(oldest->base);
    }
}

static void *fresh(size_t bytes) {
    if (bytes > PTRDIFF_MAX - 4 * PAGE) return NULL;
    size_t capacity = (bytes + PAGE - 1) / PAGE * PAGE;
    char *base = malloc(capacity + 2 * ALIGNMENT);
    if (!base) return NULL;
    struct block *b = (struct block *)(((uintptr_t)base + ALIGNMENT - 1) & ~(uintptr_t)(ALIGNMENT - 1));
    *b = (struct block){.capacity = capacity, .base = base};
#ifdef MADV_HUGEPAGE
    if (capacity >= (size_t)4 << 20) {   /* 512 times fewer page faults, where the system allows it */
        uintptr_t begin = ((uintptr_t)base + PAGE - 1) & ~(uintptr_t)(PAGE - 1);
        madvise((void *)begin, ((uintptr_t)base + capacity - begin) & ~(uintptr_t)(PAGE - 1), MADV_HUGEPAGE);
    }
#endif
    return data_of(b);
}

/* The smallest idle block that holds `bytes` and wastes at most a quarter. */
static struct block *best_fit(size_t bytes) {
    struct block *best = NULL;
    for (struct block *b = idle.older; b != &idle; b = b->older)
        if (b->capacity >= bytes && b->capacity - bytes <= bytes / 4 + PAGE && (!best || b->capacity < best->capacity)) best = b;
    return best;
}

void *buffer_take(size_t bytes) {
    struct block *b = best_fit(bytes);
    if (!b) {   /* as much goes back as is taken anew, so that keeping blocks never raises the peak */
        shrink_to(idle_bytes > bytes ? idle_bytes - bytes : 0);
        return fresh(bytes);
    }
    unlink_block(b);
    return data_of(b);
}

void buffer_give(void *data) {
    if (!data) return;
    struct block *b = block_of(data);
    b->newer = &idle, b->older = idle.older;
    idle.older->newer = b, idle.older = b;
    idle_bytes += b->capacity;
    shrink_to(limit);
}

void *buffer_resize(void *data, size_t bytes) {
    if (data && block_of(data)->capacity >= bytes) return data;
    void *moved = buffer_take(bytes);
    if (moved && data) {
        memcpy(moved, data, block_of(data)->capacity);
        buffer_give(data);
    }
    return moved;
}

void cnn_set_buffer_limit(size_t bytes) {
    limit = bytes;
    shrink_to(limit);
}

void cnn_release_buffers(void) { shrink_to(0); }
size_t cnn_buffer_limit(void) { return limit; }
size_t cnn_idle_buffer_bytes(void) { return idle_bytes; }
