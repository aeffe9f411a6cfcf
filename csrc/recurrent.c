/* Recurrent layers, one direction, all steps. The inputs' share of the gates is one product for all steps; it goes where the
   gates will be, and each step works on its own. Every step multiplies the state before it, B rows, by the same weights: they are
   packed once, into the strips of gemm.c. Sequences are cut into panels and units into blocks one strip wide; the sums of all
   gates of a block's units for a panel's sequences (a patch) stay in L1 from the micro-kernel to the non-linearities, and what
   these yield is packed at once for the product of the next step. A step is one parallel region: a thread gets the same
   patches at every step, so its share of the weights stays in its own L2. The weights' adjoint is one product over all steps.
   Few sequences over few steps are multiplied by the weights as they are: packing would cost more than the steps; and a single one
   by rows that a patch holds. A sequence mostly starts from zeros: then no product of the first step, nor of its state for the
   weights' adjoint, is computed.

   Steps are numbered in the order of work, i = 0 ... T - 1. Forward, step i reads the packed state before it from packed[i % 2]
   and leaves its own in packed[(i + 1) % 2]. Backward, the adjoint of gx of step i is packed into packed[i % 2].

   Formulas: cnnlib/ops/recurrent.py. */

enum { GATES = 4, PRODUCTS = 3, FEW_STRIPS = 4, FEW_STEPS = 4 };
#define PATCH_REALS (GATES * NR * MAX(MR, FEW * FEW_STRIPS))

/* Of y(b, g, u) = sum over k < K of x(b, k) w(g, u, k): weights with the strides of gate, unit and k. */
struct weights {
    const REAL *w;
    idx gates, K, of_gate, of_unit, of_k;
    idx piece;        /* k at a time where rows are wanted: of one array meanwhile */
    idx first;        /* x(b, 0) is this number of the packed row b */
    REAL *strips;     /* NULL: used as they are */
};
static struct weights times_weights(const REAL *w, idx gates, idx H) {   /* x W^T, as forward has it */
    return (struct weights){.w = w, .gates = gates, .K = H, .of_gate = H * H, .of_unit = H, .of_k = 1, .piece = H};
}
static struct weights times_transposed(const REAL *w, idx gates, idx H) {   /* x W, as backward has it */
    return (struct weights){.w = w, .gates = 1, .K = gates * H, .of_gate = 0, .of_unit = 1, .of_k = H, .piece = H};
}
static struct weights in_pieces(idx pieces, struct weights w) {
    w.piece = (w.K + pieces - 1) / pieces;
    return w;
}
static struct weights behind(idx first, struct weights w) {
    w.first = first;
    return w;
}

/* What the cells have in common: how the states (B, H) are cut, and what is packed. */
struct steps {
    struct sequence_shape s;
    idx i;                   /* the step at work */
    idx height, width;       /* of a patch */
    idx patches, grain;
    int far;                 /* the weights stay beyond L2 */
    int from_zeros;          /* the initial states are zeros, and so are their products */
    struct weights weights[PRODUCTS];
    idx packed_row;          /* numbers of a sequence in packed[] */
    REAL *packed[2];         /* panels, k by k, as the micro-kernel reads them */
    REAL *scratch;
};
struct patch { idx row, rows, unit, units; };   /* passed by address: copied, it would wait for all stores before it */

static idx time_of(const struct steps *p, idx i) { return p->s.reverse ? p->s.T - 1 - i : i; }
static int alive(const struct steps *p, idx i, idx b) { return !p->s.lengths || time_of(p, i) < p->s.lengths[b]; }
/* Step i of an array (T, B, size). */
static idx offset_of(const struct steps *p, idx i, idx size) { return time_of(p, i) * p->s.B * size; }
/* The state before step i. */
static const REAL *before(const struct steps *p, idx i, const REAL *first, const REAL *states) {
    return i ? states + offset_of(p, i - 1, p->s.H) : first;
}

static int is_zero(const REAL *x, idx n) {
    for (idx i = 0; i < n; i++)
        if (x[i] != 0) return 0;
    return 1;
}

static idx panels_of(const struct steps *p) { return (p->s.B + p->height - 1) / p->height; }
static idx blocks_of(const struct steps *p) { return (p->s.H + p->width - 1) / p->width; }
static idx strip_count(const struct steps *p) { return (p->s.H + NR - 1) / NR; }

/* Panels differ by one row at most: one of two rows takes as long as one of four. */
static idx first_row(const struct steps *p, idx panel, idx panels) { return (panel * p->s.B + panels - 1) / panels; }
static struct patch patch_of(const struct steps *p, idx number) {
    const idx panels = panels_of(p), panel = number % panels, unit = number / panels * p->width;
    const idx row = first_row(p, panel, panels);
    return (struct patch){row, first_row(p, panel + 1, panels) - row, unit, MIN(p->width, p->s.H - unit)};
}

/* ---- packing ---- */

/* Of each strip of units the gates, one after the other. */
static REAL *strip_at(const struct weights *w, idx strip, idx gate) {
    return w->strips + (strip * w->gates + gate) * w->K * NR;
}

/* Backward, a single sequence reads whole rows, where one patch has all units. */
static int lies_ready(const struct steps *p, const struct weights *w) {
    return p->s.B == 1 && w->of_unit == 1 && blocks_of(p) == 1;
}

static void pack_share(void *arg, idx begin, idx end, int worker) {
    (void)worker;
    const struct steps *p = arg;
    for (const struct weights *w = p->weights; w < p->weights + PRODUCTS && w->gates; w++)
        for (idx strip = begin; strip < end && !lies_ready(p, w); strip++)
            for (idx g = 0; g < w->gates; g++)
                pack_strips(w->K, MIN(NR, p->s.H - strip * NR), w->w + g * w->of_gate + strip * NR * w->of_unit, w->of_k,
                            w->of_unit, strip_at(w, strip, g));
}

/* A state is packed once and read for each gate. For a single one it is read as it lies, unless its rows are whole pages apart,
   all in one set of L1, or weights have to be asked for meanwhile. */
static int reads_in_place(const struct steps *p, const struct patch *at, idx stride) {
    return p->weights->gates == 1 && at->rows > 1 && stride % PAGE && !p->far;
}

/* x (rows of the patch, its units) becomes numbers first ... of its sequences' packed rows. */
static void pack_patch(const struct steps *p, REAL *packed, idx first, const struct patch *at, const REAL *x, idx stride) {
    if (!p->scratch || reads_in_place(p, at, stride)) return;
    x += at->row * stride + at->unit, packed += at->row * p->packed_row + (first + at->unit) * at->rows;
    if (at->rows == 1) copy_reals(packed, x, at->units);
    else pack(at->rows, at->units, x, stride, 1, packed, at->rows);
}

/* The state before the first step. */
static void pack_state(const struct steps *p, REAL *packed, idx first, const REAL *x) {
    for (idx number = 0; number < p->patches; number++) {
        const struct patch at = patch_of(p, number);
        pack_patch(p, packed, first, &at, x, p->s.H);
    }
}

/* `p` holds the shape and the weights. */
static int begin_steps(struct steps *p, idx packed_row) {
    const idx B = p->s.B;
    const int few = B <= FEW;
    double work = 0;
    p->height = panel_height(B), p->width = few ? FEW_STRIPS * NR : NR, p->packed_row = packed_row;
    p->patches = panels_of(p) * blocks_of(p);
    for (struct weights *w = p->weights; w < p->weights + PRODUCTS; w++)
        work += 0.1 * (double)(w->gates * w->K * p->height * p->width);
    p->grain = grain_of(work);
    if ((few && p->s.T <= FEW_STEPS) || !p->patches) return CNN_OK;
    idx reals = 0;
    for (struct weights *w = p->weights; w < p->weights + PRODUCTS; w++) reals += strip_count(p) * w->gates * w->K * NR;
    p->far = reals > (idx)FAR, reals += 2 * B * packed_row;
    if (!(p->scratch = scratch_take(sizeof(REAL) * (size_t)reals))) return CNN_NO_MEMORY;
    REAL *next = p->scratch;
    for (struct weights *w = p->weights; w < p->weights + PRODUCTS; w++) {
        w->strips = next;
        next += strip_count(p) * w->gates * w->K * NR;
    }
    p->packed[0] = next, p->packed[1] = next + B * packed_row;
    parallel_for(strip_count(p), grain_of((double)reals / (double)strip_count(p)), pack_share, p);
    return CNN_OK;
}

/* ---- the product of a step ---- */

struct operand { const REAL *packed, *rows; idx stride; };   /* (B, K), packed or not; no rows: zeros */

/* What forward multiplies in step i: the states before it, or what is packed of them. */
static struct operand state_before(const struct steps *p, const REAL *states) {
    return (struct operand){p->packed[p->i % 2], !p->i && p->from_zeros ? NULL : states, p->s.H};
}

/* The micro-kernel, with rows of other arrays instead of c's on their way meanwhile, and what comes after its strip. */
#define STEP_KERNEL(m) \
    static void step_kernel_##m(idx K, const REAL *a, const REAL *b, const struct wanted *wanted, idx unit, \
                                const struct after *after, REAL *c, idx ldc, int accumulate) { \
        const struct wanted rows = {wanted->first + unit, wanted->stride, wanted->count}; \
        micro_kernel(m, 2, 0, K, a, 0, b, NR, NULL, VL, NULL, rows, after, c, ldc, NULL, accumulate); \
    }
FOR_HEIGHTS(STEP_KERNEL)
#define STEP_KERNEL_OF(m) step_kernel_##m,
static void (*const step_kernels[])(idx, const REAL *, const REAL *, const struct wanted *, idx, const struct after *, REAL *,
                                    idx, int) = {NULL, FOR_HEIGHTS(STEP_KERNEL_OF)};

/* One row times so many vectors of strips that lie `apart`: with the two of a single one, an addition would wait for the last.
   Every second step goes backwards, as the weights that came last are still in L1. Where weights lie in `rows`, these are `apart`,
   and the last vector has `last` numbers. */
INLINE void multiply_row(const int vectors, const int rows, idx K, const REAL *a, const REAL *b, idx apart, idx last, REAL *sums,
                         int accumulate, int backwards) {
    const idx pitch = rows ? apart : NR, by = backwards ? -1 : 1;
    vr x[FEW_STRIPS * NV];
#pragma GCC unroll 8
    for (int v = 0; v < vectors; v++) x[v] = (vr){0};
    if (backwards) a += K - 1, b += (K - 1) * pitch;
    for (idx k = 0; k < K; k++, a += by, b += by * pitch)
#pragma GCC unroll 8
        for (int v = 0; v < vectors; v++)
            if (!rows) x[v] += *a * load(b + v / NV * apart + v % NV * VL);
            else x[v] += *a * (v + 1 < vectors ? load(b + v * VL) : load_n(b + v * VL, last));
#pragma GCC unroll 8
    for (int v = 0; v < vectors; v++, sums += VL) store(sums, accumulate ? load(sums) + x[v] : x[v]);
}

/* Weights that do not stay in L2 come from beyond it at every step, and the first panel of a block would wait for them: all
   panels of the block before ask for them, each in each of its products, n long from k on, for its share. Where nothing is to
   be asked for, the wanted rows are spread over the product. */
static struct after next_weights(const struct steps *p, const struct weights *w, idx row, idx strip, idx k, idx n, idx wanted) {
    const idx panels = panels_of(p), panel = row * panels / p->s.B;
    if (!p->far || strip >= strip_count(p)) return (struct after){w->strips, 0, MAX(1, n / (wanted + 1))};
    return (struct after){strip_at(w, strip, 0) + (k + panel * n / panels) * NR, NR, panels};
}

static void multiply_strips(const struct steps *p, const struct weights *w, idx gate, const REAL *packed,
                            const struct patch *at, REAL *sums, int accumulate, const struct wanted *wanted) {
    const REAL *a = packed + at->row * p->packed_row + w->first * at->rows, *b = strip_at(w, at->unit / NR, gate);
    const idx strips = (at->units + NR - 1) / NR, apart = w->gates * w->K * NR, next = (at->unit + p->width) / NR;
    const struct wanted own = {sums, 0, 1};
    const REAL *rows = w->w + gate * w->of_gate;
    const int backwards = p->i % 2;
    if (at->rows == 1)
        switch ((at->units + VL - 1) / VL) {
#define VECTORS(n) \
    case n: \
        if (lies_ready(p, w)) multiply_row(n, 1, w->K, a, rows, w->of_k, at->units - (n - 1) * VL, sums, accumulate, backwards); \
        else multiply_row(n, 0, w->K, a, b, apart, 0, sums, accumulate, backwards); \
        break;
            VECTORS(1) VECTORS(2) VECTORS(3) VECTORS(4) VECTORS(5) VECTORS(6) VECTORS(7) VECTORS(8)
#undef VECTORS
        }
    else
        for (idx s = 0; s < strips; s++) {
            const struct wanted *rows = wanted ? wanted + gate : &own;
            for (idx k = 0, n; k < w->K; k += n, rows++) {
                n = wanted ? MIN(w->piece, w->K - k) : w->K;
                const struct after after = next_weights(p, w, at->row, next + s, gate * w->K + k, n, rows->count);
                step_kernels[at->rows](n, a + k * at->rows, b + s * apart + k * NR, rows, s * NR, &after, sums + s * NR,
                                       p->width, accumulate || k);
            }
        }
}

/* The same with x as it lies, for one gate. */
static void multiply_states_in_place(const struct steps *p, const struct weights *w, const struct operand *x,
                                     const struct patch *at, REAL *sums, int accumulate, const struct wanted *wanted) {
    const REAL *a = x->rows + at->row * x->stride;
    const struct wanted own = {sums, 0, 1};
    for (idx s = 0; s < (at->units + NR - 1) / NR; s++, sums += NR) {
        const REAL *b = strip_at(w, at->unit / NR + s, 0);
        const struct wanted *rows = wanted ? wanted : &own;
        for (idx k = 0, n; k < w->K; k += n, rows++) {
            n = wanted ? MIN(w->piece, w->K - k) : w->K;
            const struct after soon = {rows->first + s * NR, rows->stride, MAX(1, n / (rows->count + 1))};
            packing_kernels[at->rows](1, n, a + k, x->stride, b + k * NR, NR, NULL, &soon, sums, p->width, NULL, accumulate || k);
        }
    }
}

static void multiply_unpacked_weights(const struct weights *w, idx gate, const REAL *x, idx stride, const struct patch *at,
                                      REAL *sums, idx width, int accumulate) {
    const struct product p = {.M = at->rows, .N = at->units, .K = w->K, .a = x + at->row * stride, .ars = stride, .acs = 1,
                              .b = w->w + gate * w->of_gate + at->unit * w->of_unit, .brs = w->of_k, .bcs = w->of_unit,
                              .c = sums, .crs = width, .ccs = 1,
                              .bias = accumulate ? sums : NULL, .bias_rs = width, .bias_cs = 1};
    for (idx row = 0; row < at->rows && at->units % VL && !accumulate; row++)   /* lanes without a unit: see scratch_take */
        store(sums + row * width + at->units / VL * VL, (vr){0});
    if (w->of_k == 1) dots_without_packing(&p, 0, at->units);
    else sums_without_packing(&p, 0, at->units);
}

/* sums (gates, rows of the patch, width) = or += x w. Meanwhile what will be read and written after it is on its way: `wanted`
   for each gate, backward for each of x, or NULL. */
static void multiply_state(const struct steps *p, const struct weights *w, struct operand x, const struct patch *at,
                           REAL *sums, int accumulate, const struct wanted *wanted) {
    if (!x.rows && !accumulate) memset(sums, 0, sizeof(REAL) * (size_t)(w->gates * at->rows * p->width));
    for (idx n = 0; n < w->gates && x.rows; n++) {
        const idx g = at->rows == 1 && p->i % 2 ? w->gates - 1 - n : n;
        REAL *c = sums + g * at->rows * p->width;
        if (p->scratch && reads_in_place(p, at, x.stride)) multiply_states_in_place(p, w, &x, at, c, accumulate, wanted);
        else if (p->scratch) multiply_strips(p, w, g, x.packed, at, c, accumulate, wanted);
        else multiply_unpacked_weights(w, g, x.rows, x.stride, at, c, p->width, accumulate);
    }
}

/* A patch of x, rows `stride` apart and in each `gates` pieces H apart. */
static struct wanted rows_of(const struct steps *p, const REAL *x, idx gates, const struct patch *at) {
    return (struct wanted){x + at->row * gates * p->s.H + at->unit, p->s.H, at->rows * gates};
}

/* gx (T, B, gates H) = x W_ih^T, rows `stride` apart: the first sums of every gate at every step. The bias comes with the sums
   of a step: here it would be a pass of its own. */
static int share_of_inputs(const struct sequence_shape *s, const struct sequence_inputs *in, idx gates, REAL *gx, idx stride) {
    return multiply((struct product){.M = s->T * s->B, .N = gates * s->H, .K = in->D, .a = in->x, .ars = in->D, .acs = 1,
                                     .b = in->w_ih, .brs = 1, .bcs = in->D, .c = gx, .crs = stride, .ccs = 1});
}
INLINE vr bias_of(const struct steps *p, const REAL *b, idx gate, idx unit, idx n) {
    return b ? load_part(b + gate * p->s.H + unit, n) : (vr){0};
}

/* ---- what the backward passes share ---- */

/* The adjoint of the state after step i is what its output got, plus what the step after it gave: `carried`, without a product
   by weights (NULL: nothing), and the sums of one, if that step did something with the sequence. */
INLINE vr adjoint_of_state(const struct steps *p, idx b, const REAL *dh, const REAL *carried, const REAL *sums, idx j, idx n) {
    vr d = carried ? load_part(carried + j, n) : (vr){0};
    if (dh) d = load_part(dh + j, n) + d;
    return p->i + 1 < p->s.T && alive(p, p->i + 1, b) ? d + load(sums + j) : d;
}

/* dw (gates H, H) = sum over steps of da^T x, x being the state before each: `first`, then all of `states` but the last.
   da has a row of `stride` per step and sequence. A `first` of zeros adds nothing. Few sequences' states are copied side by
   side: a product by `first` alone would take as long as all others together. */
static int weights_adjoint(const struct sequence_shape *s, idx gates, const REAL *da, idx stride, const REAL *first,
                           const REAL *states, REAL *dw) {
    const idx B = s->B, H = s->H, last = MAX(0, s->T - 1) * B;
    const REAL *others = states + (s->reverse && last ? B * H : 0);
    struct product p = {.M = gates * H, .N = H, .K = last + B, .a = da, .ars = 1, .acs = stride, .brs = H, .bcs = 1, .c = dw,
                        .crs = H, .ccs = 1};
    const int from_zeros = is_zero(first, B * H);
    if (B <= FEW && last && !from_zeros) {
        REAL *x = scratch_take(sizeof(REAL) * (size_t)(p.K * H));
        if (!x) return CNN_NO_MEMORY;
        memcpy(x + (s->reverse ? last * H : 0), first, sizeof(REAL) * (size_t)(B * H));
        memcpy(x + (s->reverse ? 0 : B * H), others, sizeof(REAL) * (size_t)(last * H));
        p.b = x;
        const int status = multiply(p);
        scratch_give(x);
        return status;
    }
    if (!from_zeros || !last) {
        p.K = s->T ? B : 0, p.a = da + (s->reverse ? last * stride : 0), p.b = first;
        if (multiply(p) != CNN_OK) return CNN_NO_MEMORY;
        if (!last) return CNN_OK;
        p.bias = dw, p.bias_rs = H, p.bias_cs = 1;   /* adds to what is there */
    }
    p.K = last, p.a = da + (s->reverse ? 0 : B * stride), p.b = others;
    return multiply(p);
}

/* ---- the simple recurrent layer ---- */

INLINE vr activated(vr a, int nonlinearity) {
    switch (nonlinearity) {
        case TANH: return vtanh(a);
        case RELU: return vmax((vr){0}, a);
        case SIGMOID: return vsigmoid(a);
        default: return a;
    }
}
INLINE vr slope(vr y, int nonlinearity) {   /* by the value */
    switch (nonlinearity) {
        case TANH: return 1 - y * y;
        case RELU: return choose(y > 0, broadcast(1), (vr){0});
        case SIGMOID: return y * (1 - y);
        default: return broadcast(1);
    }
}

struct rnn {
    struct steps steps;
    int nonlinearity;
    const REAL *b, *h0, *dh;
    REAL *h;                     /* of this step and later ones it holds the share of the inputs; backward reads it */
    REAL *da, *carried;
};

static void rnn_cells(void *arg, idx begin, idx end, int worker) {
    (void)worker;
    const struct rnn *r = arg;
    const struct steps *p = &r->steps;
    const idx i = p->i, H = p->s.H;
    const REAL *h_before = before(p, i, r->h0, r->h);
    REAL *h = r->h + offset_of(p, i, H), sums[PATCH_REALS] __attribute__((aligned(64)));
    for (idx number = begin; number < end; number++) {
        const struct patch at = patch_of(p, number);
        const struct wanted wanted = rows_of(p, h, 1, &at);
        multiply_state(p, p->weights, state_before(p, h_before), &at, sums, 0, &wanted);
        for (idx row = 0; row < at.rows; row++) {
            const idx b = at.row + row, place = b * H + at.unit;
            if (!alive(p, i, b)) {
                copy_reals(h + place, h_before + place, at.units);
                continue;
            }
            for (idx j = 0; j < at.units; j += VL) {
                const idx n = at.units - j;
                const vr x = load_part(h + place + j, n) + load(sums + row * p->width + j);
                store_part(h + place + j, activated(x + bias_of(p, r->b, 0, at.unit + j, n), r->nonlinearity), n);
            }
        }
        pack_patch(p, p->packed[(i + 1) % 2], 0, &at, h, H);
    }
}

static int rnn_forward(const struct sequence_shape *s, const struct sequence_inputs *in, int nonlinearity, const void *h0,
                       const void *w_hh, void *h) {
    struct rnn r = {{.s = *s, .weights = {times_weights(w_hh, 1, s->H)}}, nonlinearity, .b = in->b, .h0 = h0, .h = h};
    struct steps *p = &r.steps;
    p->from_zeros = is_zero(h0, s->B * s->H);
    if (share_of_inputs(s, in, 1, h, s->H) != CNN_OK) return CNN_NO_MEMORY;
    if (begin_steps(p, s->H) != CNN_OK) return CNN_NO_MEMORY;
    pack_state(p, p->packed[0], 0, h0);
    for (; p->i < s->T; p->i++) parallel_for(p->patches, p->grain, rnn_cells, &r);
    scratch_give(p->scratch);
    return CNN_OK;
}

/* With i = -1, before the first step, only the state's adjoint is left to do. */
static void rnn_cells_backward(void *arg, idx begin, idx end, int worker) {
    (void)worker;
    const struct rnn *r = arg;
    const struct steps *p = &r->steps;
    const idx i = p->i, H = p->s.H, first = i < 0 ? 0 : offset_of(p, i, H);
    const REAL *after = r->da + (i + 1 < p->s.T ? offset_of(p, i + 1, H) : 0);
    REAL sums[PATCH_REALS] __attribute__((aligned(64)));
    for (idx number = begin; number < end; number++) {
        const struct patch at = patch_of(p, number);
        const struct wanted wanted[] = {rows_of(p, r->dh + first, 1, &at), rows_of(p, r->h + first, 1, &at),
                                        rows_of(p, r->da + first, 1, &at)};
        if (i + 1 < p->s.T)
            multiply_state(p, p->weights, (struct operand){p->packed[(i + 1) % 2], after, H}, &at, sums, 0, wanted);
        for (idx row = 0; row < at.rows; row++) {
            const idx b = at.row + row, state = b * H + at.unit, place = first + state;
            for (idx j = 0; j < at.units; j += VL) {
                const idx n = at.units - j;
                const REAL *dh = i < 0 ? NULL : r->dh + place, *product = sums + row * p->width;
                const vr d = adjoint_of_state(p, b, dh, p->s.lengths ? r->carried + state : NULL, product, j, n);
                const int kept = i < 0 || !alive(p, i, b);
                if (p->s.lengths || kept) store_part(r->carried + state + j, kept ? d : (vr){0}, n);
                if (i < 0) continue;
                const vr da = kept ? (vr){0} : d * slope(load_part(r->h + place + j, n), r->nonlinearity);
                store_part(r->da + place + j, da, n);
            }
        }
        if (i >= 0) pack_patch(p, p->packed[i % 2], 0, &at, r->da + offset_of(p, i, H), H);
    }
}

static int rnn_backward(const struct sequence_shape *s, int nonlinearity, const void *dh, const void *h, const void *h0,
                        const void *w_hh, void *da, void *dh0, void *dw_hh) {
    struct rnn r = {{.s = *s, .weights = {in_pieces(3, times_transposed(w_hh, 1, s->H))}}, nonlinearity, .dh = dh,
                    .h = (REAL *)h, .da = da, .carried = dh0};
    struct steps *p = &r.steps;
    if (begin_steps(p, s->H) != CNN_OK) return CNN_NO_MEMORY;
    memset(dh0, 0, sizeof(REAL) * (size_t)(s->B * s->H));
    for (p->i = s->T - 1; p->i >= -1; p->i--) parallel_for(p->patches, p->grain, rnn_cells_backward, &r);
    scratch_give(p->scratch);
    return weights_adjoint(s, 1, da, s->H, h0, h, dw_hh);
}

#include "recurrent_lstm.c"
#include "recurrent_gru.c"

static const struct recurrent_kernels recurrent_kernels = {
    .rnn_forward = rnn_forward,
    .rnn_backward = rnn_backward,
    .lstm_forward = lstm_forward,
    .lstm_backward = lstm_backward,
    .gru_forward = gru_forward,
    .gru_backward = gru_backward,
};
