/* Steps of the optimisers, in place: formulas in cnnlib/optim.py.

   Each kernel goes once through w, its gradient and its state. A block takes ELEMENTS * blockDim.x neighbouring elements, its
   thread t takes t, t + blockDim.x, and so on: a warp reads and writes 32 neighbours, and the reads of a thread's ELEMENTS turns
   do not wait for each other.

   What changes from step to step, the learning rate and the number t of the step, comes as a number or, if the pointer next to it
   is not NULL, lies in device memory: then a recorded graph sees its value of the day. Adam's divisors 1 - beta^t the host works
   out from a t that is a number; else thread 0 of each block does, once for all its threads. */

#include "cuda.cuh"

enum { ELEMENTS = 4 };   /* per thread; elements() in source.py counts on it */

#define FOR_ELEMENTS(i)                                                                     \
    _Pragma("unroll") for (int k = 0; k < ELEMENTS; k++)                                    \
        if (const idx i = ((idx)blockIdx.x * ELEMENTS + k) * blockDim.x + threadIdx.x; i < n)

#define GRADIENT(i) (decay != 0 ? dw[i] + decay * w[i] : dw[i])

KERNEL sgd_step(idx n, double lr_, const double *__restrict__ lr_at, double momentum_, double dampening, double weight_decay,
                idx nesterov, REAL *__restrict__ w, const REAL *__restrict__ dw, REAL *__restrict__ velocity) {
    const REAL lr = (REAL)(lr_at ? *lr_at : lr_), momentum = (REAL)momentum_, gain = (REAL)(1 - dampening);
    const REAL decay = (REAL)weight_decay;
    FOR_ELEMENTS(i) {
        REAL g = GRADIENT(i);
        if (velocity) {
            const REAL v = momentum * velocity[i] + gain * g;
            velocity[i] = v;
            g = nesterov ? g + momentum * v : v;
        }
        w[i] -= lr * g;
    }
}

KERNEL adagrad_step(idx n, double lr_, const double *__restrict__ lr_at, double eps, double weight_decay, REAL *__restrict__ w,
                    const REAL *__restrict__ dw, REAL *__restrict__ square_sum) {
    const REAL lr = (REAL)(lr_at ? *lr_at : lr_), decay = (REAL)weight_decay;
    FOR_ELEMENTS(i) {
        const REAL g = GRADIENT(i), G = square_sum[i] + g * g;
        square_sum[i] = G;
        w[i] -= lr * g / (sqrt(G) + (REAL)eps);
    }
}

KERNEL rmsprop_step(idx n, double lr_, const double *__restrict__ lr_at, double alpha_, double eps, double weight_decay,
                    double momentum, REAL *__restrict__ w, const REAL *__restrict__ dw, REAL *__restrict__ square_avg,
                    REAL *__restrict__ grad_avg, REAL *__restrict__ velocity) {
    const REAL lr = (REAL)(lr_at ? *lr_at : lr_), decay = (REAL)weight_decay, alpha = (REAL)alpha_, gain = (REAL)(1 - alpha_);
    FOR_ELEMENTS(i) {
        REAL g = GRADIENT(i), G = alpha * square_avg[i] + gain * (g * g);
        square_avg[i] = G;
        if (grad_avg) {
            const REAL mean = alpha * grad_avg[i] + gain * g;
            grad_avg[i] = mean;
            G = larger(G - mean * mean, 0);   /* rounding may leave a negative rest */
        }
        g /= sqrt(G) + (REAL)eps;
        if (velocity) velocity[i] = g = (REAL)momentum * velocity[i] + g;
        w[i] -= lr * g;
    }
}

/* left1, left2: 1 - beta1^t and 1 - beta2^t, unless t lies at t_at. */
KERNEL adam_step(idx n, double lr_, const double *__restrict__ lr_at, double left1, double left2, const idx *__restrict__ t_at,
                 double beta1, double beta2, double eps, double weight_decay, idx decoupled, REAL *__restrict__ w,
                 const REAL *__restrict__ dw, REAL *__restrict__ ms, REAL *__restrict__ vs) {
    __shared__ double left[2];
    if (t_at) {
        if (threadIdx.x == 0) left[0] = 1 - pow(beta1, (double)*t_at), left[1] = 1 - pow(beta2, (double)*t_at);
        __syncthreads();
        left1 = left[0], left2 = left[1];
    }
    const double rate = lr_at ? *lr_at : lr_;
    const REAL lr = (REAL)(rate / left1), bias2 = (REAL)(1 / left2);
    const REAL b1 = (REAL)beta1, gain1 = (REAL)(1 - beta1), b2 = (REAL)beta2, gain2 = (REAL)(1 - beta2);
    const REAL decay = decoupled ? 0 : (REAL)weight_decay, shrink = decoupled ? (REAL)(1 - rate * weight_decay) : 1;
    FOR_ELEMENTS(i) {
        const REAL g = GRADIENT(i), m = b1 * ms[i] + gain1 * g, v = b2 * vs[i] + gain2 * (g * g);
        ms[i] = m, vs[i] = v;
        w[i] = w[i] * shrink - lr * m / (sqrt(v * bias2) + (REAL)eps);
    }
}
