/* Steps of the optimisers, in place: formulas in cnnlib/optim.py.

   Each kernel goes once through w, its gradient and its state. A block takes ELEMENTS * blockDim.x neighbouring elements, its
   thread t takes t, t + blockDim.x, and so on: a warp reads and writes 32 neighbours. A thread reads all that it needs for its
   ELEMENTS before it writes the first, so that it waits for memory once.

   What changes from step to step, the learning rate and the number t of the step, comes as a number or, if the pointer next to it
   is not NULL, lies in device memory: then a recorded graph sees its value of the day. Adam's divisors 1 - beta^t are worked out by
   thread 0 of each block: not by the host, whose power may end in another bit than the device's. It does all of a step's divisions
   of doubles, once for its block: most GPUs have one unit for doubles to 64 for floats. */

#include "cuda.cuh"

enum { ELEMENTS = 4 };   /* per thread; elements() in source.py counts on it */

/* Number k of this thread's elements is at place i. */
#define FOR_ELEMENTS(k, i)                                                                  \
    _Pragma("unroll") for (int k = 0; k < ELEMENTS; k++)                                    \
        if (const idx i = ((idx)blockIdx.x * ELEMENTS + k) * blockDim.x + threadIdx.x; i < n)

/* The derivative of decay / 2 w^2 comes along; without decay an infinite w leaves no trace in g. */
static __device__ __forceinline__ REAL decayed(REAL g, REAL w, REAL decay) { return decay != 0 ? g + decay * w : g; }

KERNEL sgd_step(idx n, double lr_, const double *__restrict__ lr_at, double momentum_, double dampening, double weight_decay,
                idx nesterov, REAL *__restrict__ ws, const REAL *__restrict__ dw, REAL *__restrict__ velocity) {
    const REAL lr = (REAL)(lr_at ? *lr_at : lr_), momentum = (REAL)momentum_, gain = (REAL)(1 - dampening);
    REAL w[ELEMENTS], g[ELEMENTS], v[ELEMENTS];
    FOR_ELEMENTS(k, i) w[k] = ws[i], g[k] = dw[i], v[k] = velocity ? velocity[i] : 0;
    FOR_ELEMENTS(k, i) {
        REAL step = decayed(g[k], w[k], (REAL)weight_decay);
        if (velocity) {
            velocity[i] = v[k] = momentum * v[k] + gain * step;
            step = nesterov ? step + momentum * v[k] : v[k];
        }
        ws[i] = w[k] - lr * step;
    }
}

KERNEL adagrad_step(idx n, double lr_, const double *__restrict__ lr_at, double eps, double weight_decay, REAL *__restrict__ ws,
                    const REAL *__restrict__ dw, REAL *__restrict__ square_sum) {
    const REAL lr = (REAL)(lr_at ? *lr_at : lr_);
    REAL w[ELEMENTS], g[ELEMENTS], G[ELEMENTS];
    FOR_ELEMENTS(k, i) w[k] = ws[i], g[k] = dw[i], G[k] = square_sum[i];
    FOR_ELEMENTS(k, i) {
        g[k] = decayed(g[k], w[k], (REAL)weight_decay);
        square_sum[i] = G[k] += g[k] * g[k];
        ws[i] = w[k] - lr * g[k] / (sqrt(G[k]) + (REAL)eps);
    }
}

KERNEL rmsprop_step(idx n, double lr_, const double *__restrict__ lr_at, double alpha_, double eps, double weight_decay,
                    double momentum, REAL *__restrict__ ws, const REAL *__restrict__ dw, REAL *__restrict__ square_avg,
                    REAL *__restrict__ grad_avg, REAL *__restrict__ velocity) {
    const REAL lr = (REAL)(lr_at ? *lr_at : lr_), alpha = (REAL)alpha_, gain = (REAL)(1 - alpha_);
    REAL w[ELEMENTS], g[ELEMENTS], G[ELEMENTS], mean[ELEMENTS], v[ELEMENTS];
    FOR_ELEMENTS(k, i) {
        w[k] = ws[i], g[k] = dw[i], G[k] = square_avg[i];
        mean[k] = grad_avg ? grad_avg[i] : 0, v[k] = velocity ? velocity[i] : 0;
    }
    FOR_ELEMENTS(k, i) {
        g[k] = decayed(g[k], w[k], (REAL)weight_decay);
        REAL variance = square_avg[i] = alpha * G[k] + gain * (g[k] * g[k]);
        if (grad_avg) {
            grad_avg[i] = mean[k] = alpha * mean[k] + gain * g[k];
            variance = larger(variance - mean[k] * mean[k], 0);   /* rounding may leave a negative rest */
        }
        REAL step = g[k] / (sqrt(variance) + (REAL)eps);
        if (velocity) velocity[i] = step = (REAL)momentum * v[k] + step;
        ws[i] = w[k] - lr * step;
    }
}

KERNEL adam_step(idx n, double lr_, const double *__restrict__ lr_at, idx t_, const idx *__restrict__ t_at, double beta1,
                 double beta2, double eps, double weight_decay, idx decoupled, REAL *__restrict__ ws,
                 const REAL *__restrict__ dw, REAL *__restrict__ ms, REAL *__restrict__ vs) {
    __shared__ REAL of_step[3];
    if (threadIdx.x == 0) {
        const double rate = lr_at ? *lr_at : lr_, t = (double)(t_at ? *t_at : t_);
        of_step[0] = (REAL)(rate / (1 - pow(beta1, t))), of_step[1] = (REAL)(1 / (1 - pow(beta2, t)));
        of_step[2] = decoupled ? (REAL)(1 - rate * weight_decay) : 1;
    }
    __syncthreads();
    const REAL lr = of_step[0], bias2 = of_step[1], shrink = of_step[2], decay = decoupled ? 0 : (REAL)weight_decay;
    const REAL b1 = (REAL)beta1, gain1 = (REAL)(1 - beta1), b2 = (REAL)beta2, gain2 = (REAL)(1 - beta2);
    REAL w[ELEMENTS], g[ELEMENTS], m[ELEMENTS], v[ELEMENTS];
    FOR_ELEMENTS(k, i) w[k] = ws[i], g[k] = dw[i], m[k] = ms[i], v[k] = vs[i];
    FOR_ELEMENTS(k, i) {
        g[k] = decayed(g[k], w[k], decay);
        ms[i] = m[k] = b1 * m[k] + gain1 * g[k];
        vs[i] = v[k] = b2 * v[k] + gain2 * (g[k] * g[k]);
        ws[i] = w[k] * shrink - lr * m[k] / (sqrt(v[k] * bias2) + (REAL)eps);
    }
}
