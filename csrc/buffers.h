/* A heap for arrays, whose pages stay when an array goes. All of it under the GIL. */
#ifndef CNN_BUFFERS_H
#define CNN_BUFFERS_H

#include <stddef.h>

void *buffer_take(size_t bytes);   /* 64-byte aligned; NULL when there is none */
void buffer_give(void *data);
void *buffer_resize(void *data, size_t bytes);

void cnn_set_buffer_limit(size_t bytes);   /* how large the heap may grow */
size_t cnn_buffer_limit(void);
size_t cnn_idle_buffer_bytes(void);
void cnn_release_buffers(void);   /* the pages of free blocks go back to the system */

#endif
