/* The kernels as one table of function pointers per (instruction set, dtype). float32 and float64 share the types of this
   page: arrays are void pointers to contiguous REALs, and the meaning of each argument is in cnnlib/backends/interface.py.
   Kernels return CNN_OK or CNN_NO_MEMORY. A family adds its struct here and fills it at the end of its own file. */
#ifndef CNN_KERNELS_H
#define CNN_KERNELS_H

#include <stdint.h>

#include "threads.h"

/* ---- linear (gemm.c) ---- */
struct linear_kernels {
    int (*gemm)(idx batch, idx M, idx N, idx K, const void *a, int transpose_a, const void *b, int transpose_b, void *c);
    int (*linear_forward)(idx R, idx n_in, idx n_out, const void *x, const void *w, const void *b, void *y);
    int (*linear_backward_input)(idx R, idx n_in, idx n_out, const void *dy, const void *w, void *dx);
    int (*linear_backward_weight)(idx R, idx n_in, idx n_out, const void *dy, const void *x, void *dw);
    int (*linear_backward_bias)(idx R, idx n_out, const void *dy, void *db);
};

/* ---- conv (conv.c) ---- */
struct conv_shape {
    idx N, C, H, W, F, KH, KW, OH, OW;
    idx SH, SW, DH, DW;   /* stride, dilation */
    idx top, left;        /* padding; bottom and right follow from OH and OW */
    idx groups;
};
struct conv_kernels {
    int (*conv2d_forward)(const struct conv_shape *s, const void *x, const void *w, const void *b, void *y);
    int (*conv2d_backward_input)(const struct conv_shape *s, const void *dy, const void *w, void *dx);
    int (*conv2d_backward_weight)(const struct conv_shape *s, const void *dy, const void *x, void *dw);
    int (*conv2d_backward_bias)(idx N, idx F, idx S, const void *dy, void *db);
};

/* ---- pool (pool.c) ---- */
struct pool_shape {
    idx planes;           /* N * C */
    idx H, W, KH, KW, OH, OW, SH, SW;
    idx top, left;        /* padding; bottom and right follow from OH and OW */
};
struct pool_kernels {   /* argmax: uint8_t for KH * KW <= 256, else int32_t */
    int (*max_pool2d)(const struct pool_shape *s, const void *x, void *y, void *argmax);
    int (*max_pool2d_backward)(const struct pool_shape *s, const void *dy, const void *argmax, void *dx);
    int (*avg_pool2d)(const struct pool_shape *s, int count_include_pad, const void *x, void *y);
    int (*avg_pool2d_backward)(const struct pool_shape *s, int count_include_pad, const void *dy, void *dx);
    int (*lp_pool2d)(const struct pool_shape *s, double p, const void *x, void *y);
    int (*lp_pool2d_backward)(const struct pool_shape *s, double p, const void *dy, const void *x, const void *y, void *dx);
};

/* ---- norm (norm.c); gamma and beta may be NULL ---- */
struct norm_kernels {
    int (*batch_norm)(idx N, idx C, idx S, double eps, const void *x, const void *gamma, const void *beta,
                      void *y, void *mean, void *var);
    int (*batch_norm_backward)(idx N, idx C, idx S, double eps, const void *dy, const void *x, const void *gamma,
                               const void *mean, const void *var, void *dx, void *dgamma, void *dbeta);
    int (*batch_norm_inference)(idx N, idx C, idx S, double eps, const void *x, const void *gamma, const void *beta,
                                const void *mean, const void *var, void *y);
    int (*batch_norm_inference_backward)(idx N, idx C, idx S, double eps, const void *dy, const void *x, const void *gamma,
                                         const void *mean, const void *var, void *dx, void *dgamma, void *dbeta);
    int (*layer_norm)(idx R, idx D, double eps, const void *x, const void *gamma, const void *beta,
                      void *y, void *mean, void *rstd);
    int (*layer_norm_backward)(idx R, idx D, const void *dy, const void *x, const void *gamma, const void *mean,
                               const void *rstd, void *dx, void *dgamma, void *dbeta);
    int (*local_response_norm)(idx N, idx C, idx S, idx size, double alpha, double beta, double k, const void *x,
                               void *y, void *s);
    int (*local_response_norm_backward)(idx N, idx C, idx S, idx size, double alpha, double beta, const void *dy, const void *x,
                                        const void *s, void *dx);
    int (*local_contrast_norm)(idx N, idx C, idx H, idx W, idx size, double sigma, double eps, const void *x,
                               void *y, void *v, void *deviation);
    int (*local_contrast_norm_backward)(idx N, idx C, idx H, idx W, idx size, double sigma, double eps, const void *dy,
                                        const void *v, const void *deviation, void *dx);
};

/* ---- activation (activation.c); s: slope or alpha; a: x or dy; b: what backward needs beside dy, or NULL ---- */
typedef int (*elementwise_kernel)(idx n, double s, const void *a, const void *b, void *y);
struct activation_kernels {
    elementwise_kernel relu, relu_backward, leaky_relu, leaky_relu_backward, elu, elu_backward, softplus, softplus_backward;
    elementwise_kernel sigmoid, sigmoid_backward, tanh_, tanh_backward;
    int (*softmax)(idx R, idx C, const void *x, void *y);
    int (*softmax_backward)(idx R, idx C, const void *dy, const void *y, void *dx);
    int (*log_softmax)(idx R, idx C, const void *x, void *y);
    int (*log_softmax_backward)(idx R, idx C, const void *dy, const void *y, void *dx);
    int (*maxout)(idx R, idx P, idx S, const void *x, void *y, void *argmax);
    int (*maxout_backward)(idx R, idx P, idx S, const void *dy, const void *argmax, void *dx);
};

/* ---- dropout (random.c); mask: a bit per element; scale: 1 / (1 - p) ---- */
struct random_key { uint64_t seed; uint32_t stream, call; };
struct dropout_kernels {
    int (*random_bits)(const struct random_key *key, idx n, uint32_t *words);
    int (*dropout)(const struct random_key *key, uint32_t threshold, double scale, idx n, const void *x, void *y, uint8_t *mask);
    int (*dropout_backward)(double scale, idx n, const void *dy, const uint8_t *mask, void *dx);
};

/* ---- loss (loss.c); weight may be NULL ---- */
struct loss_kernels {
    int (*cross_entropy)(idx R, idx C, double label_smoothing, int64_t ignore_index, const void *x, const int64_t *labels,
                         const void *weight, void *loss, void *lse);
    int (*cross_entropy_backward)(idx R, idx C, double label_smoothing, int64_t ignore_index, const void *dloss, const void *x,
                                  const int64_t *labels, const void *lse, const void *weight, void *dx);
};

/* ---- recurrent (recurrent.c); b, b_hh, peephole and dpeephole may be NULL ---- */
enum nonlinearity { TANH, RELU, SIGMOID, IDENTITY };
struct sequence_shape {
    idx T, B, H;
    const int64_t *lengths;   /* (B,) or NULL */
    int reverse;
};
struct sequence_inputs {
    const void *x, *w_ih, *b;   /* (T, B, D), (gates H, D), (gates H,) */
    idx D;
};
enum peephole { NO_PEEPHOLE, ONE_PER_UNIT, MATRIX };
struct recurrent_kernels {
    int (*rnn_forward)(const struct sequence_shape *s, const struct sequence_inputs *in, int nonlinearity, const void *h0,
                       const void *w_hh, void *h);
    int (*rnn_backward)(const struct sequence_shape *s, int nonlinearity, const void *dh, const void *h, const void *h0,
                        const void *w_hh, void *da, void *dh0, void *dw_hh);
    int (*lstm_forward)(const struct sequence_shape *s, const struct sequence_inputs *in, int nonlinearity, int peepholes,
                        const void *h0, const void *c0, const void *w_hh, const void *peephole, void *h, void *c, void *gates);
    int (*lstm_backward)(const struct sequence_shape *s, int nonlinearity, int peepholes, const void *dh, const void *dc,
                         const void *h, const void *c, const void *gates, const void *h0, const void *c0, const void *w_hh,
                         const void *peephole, void *da, void *dh0, void *dc0, void *dw_hh, void *dpeephole);
    int (*gru_forward)(const struct sequence_shape *s, const struct sequence_inputs *in, int reset_after, const void *h0,
                       const void *w_hh, const void *b_hh, void *h, void *gates);
    int (*gru_backward)(const struct sequence_shape *s, int reset_after, const void *dh, const void *h, const void *gates,
                        const void *h0, const void *w_hh, void *da, void *dh0, void *dw_hh, void *db_hh);
};

/* ---- embedding (embedding.c) ---- */
struct embedding_kernels {
    int (*embedding)(idx R, idx D, const int64_t *indices, const void *w, void *y);
    int (*embedding_backward)(idx R, idx V, idx D, const void *dy, const int64_t *indices, void *dw);
};

/* ---- optim (optim.c); w and the state arrays behind dw are written; velocity, grad_avg may be NULL ---- */
struct optim_kernels {
    int (*sgd_step)(idx n, double lr, double momentum, double dampening, double weight_decay, int nesterov, void *w,
                    const void *dw, void *velocity);
    int (*adagrad_step)(idx n, double lr, double eps, double weight_decay, void *w, const void *dw, void *square_sum);
    int (*rmsprop_step)(idx n, double lr, double alpha, double eps, double weight_decay, double momentum, void *w,
                        const void *dw, void *square_avg, void *grad_avg, void *velocity);
    int (*adam_step)(idx n, int64_t step, double lr, double beta1, double beta2, double eps, double weight_decay,
                     int decoupled, void *w, const void *dw, void *m, void *v);
};

struct kernel_table {
    const struct linear_kernels *linear;
    const struct conv_kernels *conv;
    const struct pool_kernels *pool;
    const struct norm_kernels *norm;
    const struct activation_kernels *activation;
    const struct dropout_kernels *dropout;
    const struct loss_kernels *loss;
    const struct recurrent_kernels *recurrent;
    const struct embedding_kernels *embedding;
    const struct optim_kernels *optim;
};

/* dispatch.c: the tables in use, and the choice of the instruction set. */
extern const struct kernel_table *cnn_f32, *cnn_f64;
int cnn_set_isa(const char *name);      /* NULL: the best that this machine has; -1: unknown or unsupported */
const char *cnn_isa(void);
const char *cnn_available_isa(int i);   /* best first; NULL past the end */
void cnn_set_exact(int exact);          /* 1: no Winograd */
int cnn_get_exact(void);

#endif
