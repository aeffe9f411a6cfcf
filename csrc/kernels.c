/* The template: compiled once per (instruction set, dtype) with -DREAL, -DREAL_IS_FLOAT, -DVECTOR_BYTES and -DTABLE, the
   only symbol that it exports. Everything else is static, so no name needs a suffix. */
#include "kernels.h"
#include "simd.h"

#include "gemm.c"
#include "conv.c"
#include "pool.c"
#include "norm.c"
#include "activation.c"
#include "random.c"
#include "loss.c"
#include "recurrent.c"
#include "embedding.c"
#include "optim.c"

const struct kernel_table TABLE = {
    .linear = &linear_kernels,
    .conv = &conv_kernels,
    .pool = &pool_kernels,
    .norm = &norm_kernels,
    .activation = &activation_kernels,
    .dropout = &dropout_kernels,
    .loss = &loss_kernels,
    .recurrent = &recurrent_kernels,
    .embedding = &embedding_kernels,
    .optim = &optim_kernels,
};
