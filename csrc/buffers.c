/* Memory of the arrays that kernels return: a heap of our own that does not go back to the system after every use.

   A fresh page costs about as much as writing it twice: the system must clear it and enter it into the page table. A training
   step asks for the same arrays again and again; here they land on pages that were touched before.

   The heap is one reserved range of addresses that grows up to a limit; beyond, memory is malloc's. Blocks lie side by side, each
   behind its header; a free one is merged with free neighbours, a request takes the smallest free block that holds it and
   leaves the rest. NumPy calls this through its allocator interface (NEP 49), always with the GIL held: no lock is needed,
   and a forked child finds the heap whole. */
#define _GNU_SOURCE
#include "buffers.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

struct block {
    size_t size;                   /* header included */
    size_t below;                  /* size of the block that ends where this begins, 0: none */
    void *base;                    /* what malloc returned; NULL: the block lies in the heap */
    struct block *next, *previous; /* in the ring of free blocks; NULL: in use */
};
enum { ALIGNMENT = 64, PAGE = 4096 };
_Static_assert(sizeof(struct block) <= ALIGNMENT, "the header fits in front of an aligned block");

static char *heap;          /* begin of the range */
static size_t heap_size;    /* bytes of it in use or free; beyond is untouched */
#ifdef __SANITIZE_ADDRESS__
static size_t limit = 0;    /* every array from malloc, so that the sanitizer sees where it ends */
#else
static size_t limit = (size_t)1 << 30;
#endif
static size_t idle_bytes;
static struct block ring = {.next = &ring, .previous = &ring};
static struct block *top;   /* the last block */

static void *data_of(struct block *b) { return (char *)b + ALIGNMENT; }
static struct block *block_of(void *data) { return (struct block *)((char *)data - ALIGNMENT); }
static struct block *above(struct block *b) { return b == top ? NULL : (struct block *)((char *)b + b->size); }
static struct block *below(struct block *b) { return b->below ? (struct block *)((char *)b - b->below) : NULL; }
static int is_free(const struct block *b) { return b && b->next; }

/* ---- the range of addresses ---- */

#if defined(__unix__) || defined(__APPLE__)
#include <sys/mman.h>
#include <unistd.h>

static const size_t RANGE = (size_t)1 << 36, STEP = (size_t)64 << 20;
static size_t opened;   /* bytes that may be touched */

static int open_heap(size_t size) {
    if (!heap) {
        heap = mmap(NULL, RANGE, PROT_NONE, MAP_PRIVATE | MAP_ANON, -1, 0);
        if (heap == MAP_FAILED) {
            heap = NULL, limit = 0;
            return 0;
        }
#ifdef MADV_HUGEPAGE
        madvise(heap, RANGE, MADV_HUGEPAGE);   /* 512 times fewer page faults, where the system allows it */
#endif
    }
    if (size <= opened) return 1;
    size_t end = (size + STEP - 1) / STEP * STEP;
    if (end > RANGE || mprotect(heap, end, PROT_READ | PROT_WRITE)) return 0;
    opened = end;
    return 1;
}

/* The pages inside go back to the system; they read as zeros when touched again. */
static void forget(char *begin, char *end) {
    uintptr_t first = ((uintptr_t)begin + PAGE - 1) / PAGE * PAGE, last = (uintptr_t)end / PAGE * PAGE;
#ifdef __linux__
    if (first < last) madvise((void *)first, last - first, MADV_DONTNEED);
#else
    if (first < last) madvise((void *)first, last - first, MADV_FREE);
#endif
}
#else
static int open_heap(size_t size) { return size == 0; }
static void forget(char *begin, char *end) { (void)begin, (void)end; }
#endif

/* ---- blocks ---- */

static void link_free(struct block *b) {
    b->next = ring.next, b->previous = &ring;
    ring.next->previous = b, ring.next = b;
    idle_bytes += b->size;
}

static void unlink_free(struct block *b) {
    b->next->previous = b->previous, b->previous->next = b->next;
    b->next = b->previous = NULL;
    idle_bytes -= b->size;
}

/* `lower` takes in the block above it. */
static void merge(struct block *lower, struct block *upper) {
    struct block *after = above(upper);
    lower->size += upper->size;
    if (after) after->below = lower->size;
    if (upper == top) top = lower;
}

/* Cuts b, in use, to `size`; the rest becomes free. */
static void split(struct block *b, size_t size) {
    if (b->size - size < 4 * PAGE) return;
    struct block *rest = (struct block *)((char *)b + size), *after = above(b);
    *rest = (struct block){.size = b->size - size, .below = size};
    if (after) after->below = rest->size;
    if (b == top) top = rest;
    b->size = size;
    link_free(rest);
}

/* The free block at the top shrinks the heap, so that nothing has to be told between it and the untouched rest. */
static void drop_top(void) {
    struct block *b = top;
    if (!is_free(b)) return;
    unlink_free(b);
    heap_size -= b->size;
    top = below(b);
}

static struct block *best_fit(size_t size) {
    struct block *best = NULL;
    for (struct block *b = ring.next; b != &ring; b = b->next)
        if (b->size >= size && (!best || b->size < best->size)) best = b;
    return best;
}

static struct block *grow(size_t size) {
    size_t begin = heap_size, lower = top ? top->size : 0;
    if (is_free(top)) begin -= top->size, lower = top->below;   /* its pages were touched before */
    if (begin + size > limit || !open_heap(begin + size)) return NULL;
    if (is_free(top)) drop_top();
    struct block *b = (struct block *)(heap + begin);
    *b = (struct block){.size = size, .below = lower};
    heap_size = begin + size;
    return top = b;
}

static void *from_malloc(size_t bytes) {
    char *base = bytes > PTRDIFF_MAX - 4 * PAGE ? NULL : malloc(bytes + 2 * ALIGNMENT);
    if (!base) return NULL;
    struct block *b = (struct block *)(((uintptr_t)base + ALIGNMENT - 1) & ~(uintptr_t)(ALIGNMENT - 1));
    *b = (struct block){.size = bytes + ALIGNMENT, .base = base};
    return data_of(b);
}

void *buffer_take(size_t bytes) {
    if (bytes > limit) return from_malloc(bytes);
    size_t size = (bytes + 2 * ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    struct block *b = best_fit(size);
    if (b) {
        unlink_free(b);
        split(b, size);
    } else {
        b = grow(size);
    }
    return b ? data_of(b) : from_malloc(bytes);
}

void buffer_give(void *data) {
    if (!data) return;
    struct block *b = block_of(data);
    if (b->base) {
        free(b->base);
        return;
    }
    struct block *upper = above(b), *lower = below(b);
    if (is_free(upper)) {
        unlink_free(upper);
        merge(b, upper);
    }
    if (is_free(lower)) {
        unlink_free(lower);
        merge(lower, b);
        b = lower;
    }
    link_free(b);
    if (heap_size > limit) cnn_release_buffers();
}

void *buffer_resize(void *data, size_t bytes) {
    size_t capacity = data ? block_of(data)->size - ALIGNMENT : 0;
    if (data && capacity >= bytes) return data;
    void *moved = buffer_take(bytes);
    if (moved && data) {
        memcpy(moved, data, capacity);
        buffer_give(data);
    }
    return moved;
}

void cnn_release_buffers(void) {
    for (struct block *b = ring.next; b != &ring; b = b->next) forget((char *)data_of(b), (char *)b + b->size);
    drop_top();
}

void cnn_set_buffer_limit(size_t bytes) {
    limit = bytes;
    if (heap_size > limit) cnn_release_buffers();
}

size_t cnn_buffer_limit(void) { return limit; }
size_t cnn_idle_buffer_bytes(void) { return idle_bytes; }
