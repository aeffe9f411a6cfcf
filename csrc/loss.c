/* Cross-entropy of logits (R, C) against labels; the row helpers are those of softmax (activation.c). */

struct cross_entropy {
    idx C;
    REAL of_label, of_all;   /* 1 - e and e / C, e the label smoothing */
    REAL weight_sum;
    int64_t ignore_index;
    const REAL *dloss, *x, *weight;
    const int64_t *labels;
    REAL *lse, *y;   /* y: the losses, or dx */
};

static void cross_entropy_rows(void *arg, idx begin, idx end, int worker) {
    const struct cross_entropy *q = arg;
    (void)worker;
    for (idx row = begin; row < end; row++) {
        const REAL *x = q->x + row * q->C;
        REAL m = row_max(x, q->C), log_sum = FOR_REAL(logf, log)(row_exp(x, q->C, m, NULL));
        int64_t t = q->labels[row];
        q->lse[row] = m + log_sum;
        q->y[row] = 0;
        if (t == q->ignore_index) continue;
        REAL loss = log_sum - (x[t] - m);   /* lse - x[t], without the rounding of a large m */
        if (q->weight) loss *= q->weight[t];
        if (q->of_all != 0) {
            vr sum = {0};
            for (idx i = 0; i < q->C; i += VL) {
                idx n = q->C - i;
                vr term = log_sum - (load_or(x + i, n, m + log_sum) - m);
                if (q->weight) term *= load_or(q->weight + i, n, 0);
                sum += n < VL ? choose(first_lanes(n), term, (vr){0}) : term;
            }
            loss = q->of_label * loss + q->of_all * horizontal_sum(sum);
        }
        q->y[row] = loss;
    }
}
static int cross_entropy(idx R, idx C, double label_smoothing, int64_t ignore_index, const void *x, const int64_t *labels,
                         const void *weight, void *loss, void *lse) {
    struct cross_entropy q = {.C = C, .of_label = (REAL)(1 - label_smoothing), .of_all = (REAL)(label_smoothing / (double)C),
                              .ignore_index = ignore_index, .x = x, .labels = labels, .weight = weight, .y = loss, .lse = lse};
    parallel_for(R, grain_of(4.0 * (double)(C + VL)), cross_entropy_rows, &q);
    return CNN_OK;
}

static void cross_entropy_backward_rows(void *arg, idx begin, idx end, int worker) {
    const struct cross_entropy *q = arg;
    (void)worker;
    for (idx row = begin; row < end; row++) {
        const REAL *x = q->x + row * q->C;
        REAL *dx = q->y + row * q->C;
        int64_t t = q->labels[row];
        if (t == q->ignore_index) {
            memset(dx, 0, (size_t)q->C * sizeof *dx);
            continue;
        }
        REAL dloss = q->dloss[row], of_label = q->of_label * (q->weight ? q->weight[t] : 1);
        REAL of_softmax = of_label + q->of_all * q->weight_sum;
        for (idx i = 0; i < q->C; i += VL) {
            idx n = q->C - i;
            vr p = vexp(load_or(x + i, n, 0) - q->lse[row]) * of_softmax;
            if (q->of_all != 0) p -= q->of_all * (q->weight ? load_or(q->weight + i, n, 0) : broadcast(1));
            if (t >= i && t < i + VL) p = choose(lane_numbers() == ((integer)(t - i) - (vi){0}), p - of_label, p);
            store_part(dx + i, p * dloss, n);
        }
    }
}
static int cross_entropy_backward(idx R, idx C, double label_smoothing, int64_t ignore_index, const void *dloss, const void *x,
                                  const int64_t *labels, const void *lse, const void *weight, void *dx) {
    double weight_sum = 0;
    for (idx c = 0; c < C; c++) weight_sum += weight ? ((const REAL *)weight)[c] : 1;
    struct cross_entropy q = {.C = C, .of_label = (REAL)(1 - label_smoothing), .of_all = (REAL)(label_smoothing / (double)C),
                              .weight_sum = (REAL)weight_sum, .ignore_index = ignore_index, .dloss = dloss, .x = x,
                              .labels = labels, .weight = weight, .lse = (REAL *)lse, .y = dx};
    parallel_for(R, grain_of(3.0 * (double)(C + VL)), cross_entropy_backward_rows, &q);
    return CNN_OK;
}

static const struct loss_kernels loss_kernels = {.cross_entropy = cross_entropy, .cross_entropy_backward = cross_entropy_backward};
