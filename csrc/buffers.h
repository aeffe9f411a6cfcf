/* Blocks of memory for arrays, kept when an array goes for the next one. All of it under the GIL. */
#ifndef CNN_BUFFERS_H
#define CNN_BUFFERS_H

#include <stddef.h>

void *buffer_take(size_t bytes);   /* 64-byte aligned; NULL when there is none */
void buffer_give(void *data);
void *buffer_resize(void *data, size_t bytes);

void cnn_set_buffer_limit(size_t bytes);   /* of what is kept idle; 0: nothing is */
size_t cnn_buffer_limit(void);
size_t cnn_idle_buffer_bytes(void);
void cnn_release_buffers(void);   /* idle blocks go back to the system */

#endif
