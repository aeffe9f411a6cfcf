/* Threaded kernels of every family, called from two threads at once, with a number of threads that changes between calls and
   forks in between; every result must be, bit for bit, that of one thread. `make tsan` builds it with -fsanitize=thread. (That
   the values are right, and that a forked child may start threads, is what the Python tests check.) */
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "kernels.h"

extern const struct kernel_table cnn_driver_f32, cnn_driver_f64;

int cnn_get_exact(void) { return 0; }   /* dispatch.c's, which stays out: with Winograd */

enum { REALS = 1 << 15, ROUNDS = 6, SECONDS = 120 };

struct input {
    const struct kernel_table *kernels;
    size_t real;                  /* its size */
    char *x, *w, *positive;       /* REALS of them */
};
static struct input inputs[2];
static int64_t labels[256];       /* 0 ... 6 */
static uint8_t winners[REALS];    /* 0 ... 3 */

/* Where a call writes: each output after the last. */
struct output { const struct input *in; char *next; };

static void *room(struct output *o, idx reals) {
    char *here = o->next;
    o->next += (size_t)reals * o->in->real;
    return here;
}
static void *copy(struct output *o, idx reals) {   /* of the input: what an optimiser's step changes */
    return memcpy(room(o, reals), o->in->positive, (size_t)reals * o->in->real);
}

/* ---- one function per family: call number i ---- */

enum { NO_SUCH_CALL = 1 };

static int linear(const struct linear_kernels *k, int i, struct output *o) {
    const void *x = o->in->x, *w = o->in->w, *p = o->in->positive;
    switch (i) {
    case 0: return k->gemm(1, 37, 50, 300, x, 0, w, 0, room(o, 37 * 50));
    case 1: return k->gemm(1, 50, 37, 40, x, 1, w, 1, room(o, 37 * 50));
    case 2: return k->gemm(5, 9, 11, 13, x, 0, w, 1, room(o, 5 * 9 * 11));
    case 3: return k->gemm(1, 2, 90, 120, x, 0, w, 1, room(o, 2 * 90));
    case 4: return k->gemm(1, 3, 200, 50, x, 0, w, 0, room(o, 3 * 200));
    case 5: return k->linear_forward(40, 30, 20, x, w, p, room(o, 40 * 20));
    case 6: return k->linear_backward_input(40, 30, 20, x, w, room(o, 40 * 30));
    case 7: return k->linear_backward_weight(40, 30, 20, x, w, room(o, 30 * 20));
    case 8: return k->linear_backward_bias(40, 90, x, room(o, 90));
    default: return NO_SUCH_CALL;
    }
}

static const struct conv_shape convolutions[] = {
    {.N = 2, .C = 3, .H = 12, .W = 13, .F = 5, .KH = 3, .KW = 3, .OH = 12, .OW = 13, .SH = 1, .SW = 1, .DH = 1, .DW = 1, .top = 1,
     .left = 1, .groups = 1},
    {.N = 2, .C = 4, .H = 11, .W = 11, .F = 6, .KH = 3, .KW = 2, .OH = 5, .OW = 5, .SH = 2, .SW = 2, .DH = 1, .DW = 2, .groups = 2},
    {.N = 2, .C = 8, .H = 9, .W = 9, .F = 8, .KH = 3, .KW = 3, .OH = 9, .OW = 9, .SH = 1, .SW = 1, .DH = 1, .DW = 1, .top = 1,
     .left = 1, .groups = 8},
    {.N = 4, .C = 24, .H = 40, .W = 1, .F = 24, .KH = 3, .KW = 3, .OH = 40, .OW = 1, .SH = 1, .SW = 1, .DH = 1, .DW = 1,
     .top = 1, .left = 1, .groups = 24},
    {.N = 3, .C = 20, .H = 7, .W = 7, .F = 15, .KH = 1, .KW = 1, .OH = 7, .OW = 7, .SH = 1, .SW = 1, .DH = 1, .DW = 1, .groups = 1},
    {.N = 2, .C = 40, .H = 8, .W = 8, .F = 40, .KH = 3, .KW = 3, .OH = 8, .OW = 8, .SH = 1, .SW = 1, .DH = 1, .DW = 1, .top = 1,
     .left = 1, .groups = 1},
    {.N = 2, .C = 24, .H = 11, .W = 10, .F = 40, .KH = 5, .KW = 3, .OH = 6, .OW = 5, .SH = 2, .SW = 2, .DH = 1, .DW = 1, .top = 2,
     .left = 1, .groups = 2},
};
enum { CONVOLUTIONS = sizeof convolutions / sizeof *convolutions };

static int conv(const struct conv_kernels *k, int i, struct output *o) {
    const void *x = o->in->x, *w = o->in->w, *p = o->in->positive;
    if (i >= 4 * CONVOLUTIONS) return NO_SUCH_CALL;
    const struct conv_shape *s = &convolutions[i / 4];
    switch (i % 4) {
    case 0: return k->conv2d_forward(s, x, w, i / 4 % 2 ? p : NULL, room(o, s->N * s->F * s->OH * s->OW));
    case 1: return k->conv2d_backward_input(s, x, w, room(o, s->N * s->C * s->H * s->W));
    case 2: return k->conv2d_backward_weight(s, x, w, room(o, s->F * s->C / s->groups * s->KH * s->KW));
    default: return k->conv2d_backward_bias(s->N, s->F, s->OH * s->OW, x, room(o, s->F));
    }
}

static const struct pool_shape pools[] = {
    {.planes = 7, .H = 12, .W = 14, .KH = 2, .KW = 2, .OH = 6, .OW = 7, .SH = 2, .SW = 2},
    {.planes = 5, .H = 11, .W = 20, .KH = 3, .KW = 3, .OH = 5, .OW = 9, .SH = 2, .SW = 2},
    {.planes = 6, .H = 9, .W = 10, .KH = 2, .KW = 3, .OH = 10, .OW = 5, .SH = 1, .SW = 2, .top = 1, .left = 1},
};
enum { POOLS = sizeof pools / sizeof *pools };

static int pool(const struct pool_kernels *k, int i, struct output *o) {
    const void *x = o->in->x, *w = o->in->w, *p = o->in->positive;
    if (i >= 6 * POOLS) return NO_SUCH_CALL;
    const struct pool_shape *s = &pools[i / 6];
    const idx n = s->planes * s->H * s->W, m = s->planes * s->OH * s->OW;
    const struct pool_shape unclipped = {s->planes, s->H, s->W, 2, 2, s->H / 2, s->W / 2, 2, 2, 0, 0};   /* any winner fits */
    switch (i % 6) {
    case 0: return k->max_pool2d(s, x, room(o, m), room(o, m));
    case 1: return k->max_pool2d_backward(&unclipped, x, winners, room(o, n));
    case 2: return k->avg_pool2d(s, i % 4 == 0, x, room(o, m));
    case 3: return k->avg_pool2d_backward(s, i % 4 == 0, x, room(o, n));
    case 4: return k->lp_pool2d(s, 3, x, room(o, m));
    default: return k->lp_pool2d_backward(s, 2, x, w, p, room(o, n));
    }
}

static int norm(const struct norm_kernels *k, int i, struct output *o) {
    const void *x = o->in->x, *w = o->in->w, *p = o->in->positive;
    const idx N = 4, C = 9, S = i % 2 ? 1 : 60, n = N * C * S;
    switch (i) {
    case 0: case 1: return k->batch_norm(N, C, S, 1e-5, x, p, w, room(o, n), room(o, C), room(o, C));
    case 2: case 3: return k->batch_norm_backward(N, C, S, 1e-5, x, w, p, x, p, room(o, n), room(o, C), room(o, C));
    case 4: case 5: return k->batch_norm_inference(N, C, S, 1e-5, x, p, w, x, p, room(o, n));
    case 6: case 7: return k->batch_norm_inference_backward(N, C, S, 1e-5, x, w, p, x, p, room(o, n), room(o, C), room(o, C));
    case 8: return k->layer_norm(70, 33, 1e-5, x, p, w, room(o, 70 * 33), room(o, 70), room(o, 70));
    case 9: return k->layer_norm_backward(70, 33, x, w, p, x, p, room(o, 70 * 33), room(o, 33), room(o, 33));
    case 10: return k->local_response_norm(3, 9, 150, 5, 1e-2, 0.75, 2, x, room(o, 4050), room(o, 4050));
    case 11: return k->local_response_norm_backward(3, 9, 150, 5, 1e-2, 0.75, x, w, p, room(o, 4050));
    case 12: return k->local_contrast_norm(5, 3, 12, 13, 5, 1.2, 1e-3, x, room(o, 2340), room(o, 2340), room(o, 780));
    case 13: return k->local_contrast_norm_backward(5, 3, 12, 13, 5, 1.2, 1e-3, x, w, p, room(o, 2340));
    default: return NO_SUCH_CALL;
    }
}

static int activation(const struct activation_kernels *k, int i, struct output *o) {
    const void *x = o->in->x, *w = o->in->w, *p = o->in->positive;
    const elementwise_kernel elementwise[] = {
        k->relu, k->relu_backward, k->leaky_relu, k->leaky_relu_backward, k->elu, k->elu_backward, k->softplus,
        k->softplus_backward, k->sigmoid, k->sigmoid_backward, k->tanh_, k->tanh_backward};
    enum { ELEMENTWISE = sizeof elementwise / sizeof *elementwise };
    if (i < ELEMENTWISE) return elementwise[i](5000, 0.3, x, i % 2 ? w : NULL, room(o, 5000));
    switch (i - ELEMENTWISE) {
    case 0: return k->softmax(40, 37, x, room(o, 40 * 37));
    case 1: return k->softmax_backward(40, 37, x, p, room(o, 40 * 37));
    case 2: return k->log_softmax(40, 37, x, room(o, 40 * 37));
    case 3: return k->log_softmax_backward(40, 37, x, w, room(o, 40 * 37));
    case 4: return k->maxout(30, 3, 21, x, room(o, 30 * 21), room(o, 30 * 21));
    case 5: return k->maxout_backward(30, 4, 21, x, winners, room(o, 30 * 4 * 21));
    default: return NO_SUCH_CALL;
    }
}

static int recurrent(const struct recurrent_kernels *k, int i, struct output *o) {
    const void *x = o->in->x, *w = o->in->w, *p = o->in->positive;
    const struct sequence_shape all = {3, 9, 21, NULL, 0}, some = {6, 15, 17, labels, 1};
    const struct sequence_shape one = {6, 1, 70, NULL, 0}, few_steps = {2, 1, 70, NULL, 0}, few = {2, 3, 40, labels, 1};
    const struct sequence_inputs in = {x, w, p, 11}, without_bias = {x, w, NULL, 11};
    switch (i) {
    case 0: return k->rnn_forward(&all, &in, TANH, w, p, room(o, 567));
    case 1: return k->rnn_backward(&some, RELU, x, w, p, p, room(o, 1530), room(o, 255), room(o, 289));
    case 2: return k->lstm_forward(&some, &in, TANH, NO_PEEPHOLE, w, p, w, NULL, room(o, 1530), room(o, 1530), room(o, 6120));
    case 3: return k->lstm_forward(&all, &without_bias, IDENTITY, MATRIX, w, p, w, p, room(o, 567), room(o, 567), room(o, 2268));
    case 4: return k->lstm_backward(&all, TANH, ONE_PER_UNIT, x, w, p, w, x, w, p, w, p, room(o, 2268), room(o, 189),
                                    room(o, 189), room(o, 1764), room(o, 63));
    case 5: return k->lstm_backward(&some, TANH, MATRIX, x, w, p, w, x, w, p, w, p, room(o, 6120), room(o, 255), room(o, 255),
                                    room(o, 1156), room(o, 867));
    case 6: return k->gru_forward(&all, &in, 1, w, w, p, room(o, 567), room(o, 2268));
    case 7: return k->gru_forward(&one, &in, 0, w, w, NULL, room(o, 420), room(o, 1680));
    case 8: return k->gru_backward(&some, 1, x, w, p, x, w, room(o, 4590), room(o, 255), room(o, 867), room(o, 51));
    case 9: return k->gru_backward(&few_steps, 0, x, w, p, x, w, room(o, 420), room(o, 70), room(o, 14700), room(o, 210));
    case 10: return k->gru_forward(&some, &in, 0, w, w, p, room(o, 1530), room(o, 6120));
    case 11: return k->gru_backward(&some, 0, x, w, p, x, w, room(o, 4590), room(o, 255), room(o, 867), room(o, 51));
    case 12: return k->lstm_forward(&few, &in, TANH, MATRIX, w, p, w, p, room(o, 240), room(o, 240), room(o, 960));
    case 13: return k->lstm_backward(&few, IDENTITY, MATRIX, x, w, p, w, x, w, p, w, p, room(o, 960), room(o, 120),
                                     room(o, 120), room(o, 6400), room(o, 4800));
    default: return NO_SUCH_CALL;
    }
}

static int others(const struct kernel_table *k, int i, struct output *o) {
    const void *x = o->in->x, *w = o->in->w, *p = o->in->positive;
    const struct random_key key = {7, 1, 3};
    switch (i) {
    case 0: return k->dropout->random_bits(&key, 5000, room(o, 5000));
    case 1: return k->dropout->dropout(&key, 1u << 30, 1.25, 5000, x, room(o, 5000), room(o, 5000));
    case 2: return k->loss->cross_entropy(50, 37, 0.1, 3, x, labels, p, room(o, 50), room(o, 50));
    case 3: return k->loss->cross_entropy_backward(50, 37, 0.1, 3, x, w, labels, p, p, room(o, 50 * 37));
    case 4: return k->embedding->embedding(60, 40, labels, x, room(o, 60 * 40));
    case 5: return k->embedding->embedding_backward(20, 7, 1200, x, labels, room(o, 7 * 1200));   /* several pages */
    case 6: return k->optim->sgd_step(5000, 0.1, 0.9, 0.1, 0.01, 1, copy(o, 5000), x, copy(o, 5000));
    case 7: return k->optim->adagrad_step(5000, 0.1, 1e-8, 0.01, copy(o, 5000), x, copy(o, 5000));
    case 8: return k->optim->rmsprop_step(5000, 0.1, 0.9, 1e-8, 0.01, 0.9, copy(o, 5000), x, copy(o, 5000), copy(o, 5000),
                                          copy(o, 5000));
    case 9: return k->optim->adam_step(5000, 3, 0.1, 0.9, 0.999, 1e-8, 0.01, 1, copy(o, 5000), x, copy(o, 5000), copy(o, 5000));
    case 10: return k->dropout->dropout_backward(1.25, 5000, x, winners, room(o, 5000));
    default: return NO_SUCH_CALL;
    }
}

/* ---- all of them ---- */

enum { FAMILIES = 7, MOST = 32 };   /* calls of a family */
enum { CALLS = 2 * FAMILIES * MOST };

static int run(int call, char *out) {
    const struct input *in = &inputs[call / (FAMILIES * MOST)];
    const struct kernel_table *k = in->kernels;
    const int i = call % MOST;
    struct output o = {in, out};
    struct kernel_call before = kernel_enter();
    int status = NO_SUCH_CALL;
    switch (call / MOST % FAMILIES) {
    case 0: status = linear(k->linear, i, &o); break;
    case 1: status = conv(k->conv, i, &o); break;
    case 2: status = pool(k->pool, i, &o); break;
    case 3: status = norm(k->norm, i, &o); break;
    case 4: status = activation(k->activation, i, &o); break;
    case 5: status = recurrent(k->recurrent, i, &o); break;
    default: status = others(k, i, &o);
    }
    kernel_leave(before);
    return status;
}

static const size_t BYTES = REALS * sizeof(double);
static char *expected[CALLS];     /* NULL: no such call */
static atomic_int wrong;

static void check(int call, char *out) {
    memset(out, 0, BYTES);
    if (run(call, out) == CNN_OK && !memcmp(out, expected[call], BYTES)) return;
    fprintf(stderr, "call %d of family %d, %s, gave another result\n", call % MOST, call / MOST % FAMILIES,
            call < CALLS / 2 ? "float32" : "float64");
    atomic_fetch_add(&wrong, 1);
}

enum { IN_A_CHILD = 2 };   /* the thread sanitizer knows no new threads in the child of several: there one must do */

static void *work(void *number) {
    const int me = (int)(intptr_t)number, most = me == IN_A_CHILD ? 1 : 4;
    char *out = malloc(BYTES);
    for (int round = 0; round < ROUNDS; round++)
        for (int i = 0; i < CALLS; i++) {
            const int call = me % 2 ? CALLS - 1 - i : (i + me * 37) % CALLS;
            if (!expected[call]) continue;
            cnn_set_num_threads(1 + (i + round) % most);
            check(call, out);
        }
    free(out);
    return NULL;
}

static void work_in_a_child(void) {
    pid_t child = fork();
    if (!child) {
        alarm(SECONDS);
        atomic_store(&wrong, 0);
        work((void *)IN_A_CHILD);
        _exit(atomic_load(&wrong) > 0);
    }
    int status = 0;
    waitpid(child, &status, 0);
    if (status) fprintf(stderr, "a forked child ended with status %x\n", status), atomic_fetch_add(&wrong, 1);
}

static void fill(struct input *in, const struct kernel_table *kernels, size_t real) {
    *in = (struct input){kernels, real, malloc(BYTES), malloc(BYTES), malloc(BYTES)};
    char *arrays[] = {in->x, in->w, in->positive};
    for (int a = 0; a < 3; a++)
        for (idx i = 0; i < REALS; i++) {
            double v = (double)rand() / RAND_MAX * 2 - (a == 2 ? -0.1 : 1);
            if (real == sizeof(float)) ((float *)arrays[a])[i] = (float)v;
            else ((double *)arrays[a])[i] = v;
        }
}

int main(void) {
    alarm(SECONDS);   /* what hangs is a failure */
    fill(&inputs[0], &cnn_driver_f32, sizeof(float));
    fill(&inputs[1], &cnn_driver_f64, sizeof(double));
    for (int i = 0; i < REALS; i++) winners[i] = (uint8_t)(rand() % 4);
    for (int i = 0; i < 256; i++) labels[i] = rand() % 7;
    cnn_split_finely(1);
    cnn_set_num_threads(1);
    int calls = 0;
    for (int call = 0; call < CALLS; call++) {
        char *out = calloc(1, BYTES);
        int status = run(call, out);
        if (status == CNN_NO_MEMORY) return 1;
        if (status == CNN_OK) expected[call] = out, calls++;
        else free(out);
    }
    for (int round = 0; round < 3; round++) {
        pthread_t threads[2];
        for (intptr_t i = 0; i < 2; i++) pthread_create(&threads[i], NULL, work, (void *)i);
        if (round) work_in_a_child();   /* while they work */
        for (int i = 0; i < 2; i++) pthread_join(threads[i], NULL);
        work_in_a_child();              /* while they rest */
    }
    printf("%d kernel calls, %d wrong results\n", calls, atomic_load(&wrong));
    return atomic_load(&wrong) > 0;
}
