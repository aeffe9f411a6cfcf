/* LSTM, with peepholes of one weight per unit, which are products of lanes, or of a matrix per gate, which are products of
   states: then a step has a second region, because every unit's output gate needs the cells of all units. Packed rows are h and
   c, backward the adjoints of i, f, g, o; included by recurrent.c. */

enum { STATE, CELLS, OUTPUT };   /* the products: W_hh h, p_i and p_f c, p_o c */

struct lstm {
    struct steps steps;
    int nonlinearity, peepholes;
    const REAL *b, *h0, *c0, *peephole, *dh;
    REAL *h, *c, *gates;         /* gates hold the inputs' share before their step; backward reads all three */
    REAL *da, *carried, *dc;
};

static int is_matrix(const struct lstm *l) { return l->peepholes == MATRIX; }

/* p_k c of gate k = 0, 1, 2 for i, f, o. */
INLINE vr peep(const struct lstm *l, int k, idx unit, idx n, vr c) {
    return l->peepholes == ONE_PER_UNIT ? load_part(l->peephole + k * l->steps.s.H + unit, n) * c : (vr){0};
}

/* ---- forward ---- */

struct lstm_row {
    const REAL *c_before, *sums;   /* of the first unit; gates lie H apart, in sums `gap` */
    REAL *gates, *c;
    idx unit, units, gap;
};

/* What was asked for before may have left L1, as rows of gates are often whole pages apart: the next row's once more. */
INLINE void lstm_row(const struct lstm *l, struct lstm_row r) {
    const idx H = l->steps.s.H;
    for (idx j = 0; j < r.units; j += VL) {
        const idx n = r.units - j, u = r.unit + j;
        const REAL *sums = r.sums + j;
        REAL *gates = r.gates + j;
        const vr before = load_part(r.c_before + j, n);
        vr a[4];
#pragma GCC unroll 4
        for (idx k = 0; k < 4; k++) __builtin_prefetch(gates + (k + 4) * H, 1);
#pragma GCC unroll 4
        for (idx k = 0; k < 4; k++)
            a[k] = load_part(gates + k * H, n) + load(sums + k * r.gap) + bias_of(&l->steps, l->b, k, u, n);
        const vr i = vsigmoid(a[0] + peep(l, 0, u, n, before)), f = vsigmoid(a[1] + peep(l, 1, u, n, before)), g = vtanh(a[2]);
        const vr c = f * before + i * g, a_o = a[3] + peep(l, 2, u, n, c);
        const vr o = is_matrix(l) ? a_o : vsigmoid(a_o);
        store_part(gates, i, n);
        store_part(gates + H, f, n);
        store_part(gates + 2 * H, g, n);
        store_part(gates + 3 * H, o, n);
        store_part(r.c + j, c, n);
    }
}

/* h of a patch, once its cells and output gates are there: in a loop of its own, as the processor does not look far enough
   ahead to begin the next gates while it waits for a cell. */
static void lstm_states(const struct lstm *l, const struct patch *at) {
    const struct steps *p = &l->steps;
    const idx H = p->s.H, states = offset_of(p, p->i, H);
    for (idx row = 0; row < at->rows; row++) {
        const idx b = at->row + row, place = states + b * H + at->unit;
        const REAL *o = l->gates + 4 * (states + b * H) + 3 * H + at->unit;
        for (idx j = 0; j < at->units && alive(p, p->i, b); j += VL) {
            const idx n = at->units - j;
            const vr c = load_part(l->c + place + j, n);
            store_part(l->h + place + j, load_part(o + j, n) * activated(c, l->nonlinearity), n);
        }
    }
}

/* A sequence that has ended keeps its state. */
static void keep_state(const struct lstm *l, REAL *gates, idx count, idx place, idx units, const REAL *from, REAL *to) {
    for (idx g = 0; g < count; g++) memset(gates + g * l->steps.s.H, 0, sizeof(REAL) * (size_t)units);
    copy_reals(to + place, from + place, units);
}

static void lstm_cells(void *arg, idx begin, idx end, int worker) {
    (void)worker;
    const struct lstm *l = arg;
    const struct steps *p = &l->steps;
    const idx i = p->i, H = p->s.H, gates = offset_of(p, i, 4 * H);
    const REAL *h_before = before(p, i, l->h0, l->h), *c_before = before(p, i, l->c0, l->c);
    REAL *h = l->h + offset_of(p, i, H), *c = l->c + offset_of(p, i, H), *next = p->packed[(i + 1) % 2];
    REAL sums[PATCH_REALS] __attribute__((aligned(64)));
    for (idx number = begin; number < end; number++) {
        const struct patch at = patch_of(p, number);
        const struct wanted wanted[] = {rows_of(p, l->gates + gates, 4, &at), rows_of(p, c_before, 1, &at),
                                        rows_of(p, c, 1, &at), rows_of(p, h, 1, &at)};
        multiply_state(p, &p->weights[STATE], state_before(p, h_before), &at, sums, 0, wanted);
        if (is_matrix(l)) multiply_state(p, &p->weights[CELLS], state_before(p, c_before), &at, sums, 1, NULL);
        for (idx row = 0; row < at.rows; row++) {
            const idx b = at.row + row, place = b * H + at.unit, gate = gates + b * 4 * H + at.unit;
            if (alive(p, i, b)) {
                lstm_row(l, (struct lstm_row){c_before + place, sums + row * p->width, l->gates + gate, c + place,
                                              at.unit, at.units, at.rows * p->width});
            } else {
                keep_state(l, l->gates + gate, 4, place, at.units, c_before, c);
                copy_reals(h + place, h_before + place, at.units);
            }
        }
        if (is_matrix(l)) {
            pack_patch(p, next, H, &at, c, H);
        } else {
            lstm_states(l, &at);
            pack_patch(p, next, 0, &at, h, H);
        }
    }
}

static void lstm_outputs(void *arg, idx begin, idx end, int worker) {
    (void)worker;
    const struct lstm *l = arg;
    const struct steps *p = &l->steps;
    const idx i = p->i, H = p->s.H, gates = offset_of(p, i, 4 * H) + 3 * H;
    REAL *h = l->h + offset_of(p, i, H), *c = l->c + offset_of(p, i, H), *next = p->packed[(i + 1) % 2];
    REAL sums[PATCH_REALS] __attribute__((aligned(64)));
    for (idx number = begin; number < end; number++) {
        const struct patch at = patch_of(p, number);
        multiply_state(p, &p->weights[OUTPUT], (struct operand){next, c, H}, &at, sums, 0, NULL);
        for (idx row = 0; row < at.rows; row++) {
            const idx b = at.row + row;
            REAL *gate = l->gates + gates + b * 4 * H + at.unit;
            for (idx j = 0; j < at.units && alive(p, i, b); j += VL) {
                const idx n = at.units - j;
                store_part(gate + j, vsigmoid(load_part(gate + j, n) + load(sums + row * p->width + j)), n);
            }
        }
        lstm_states(l, &at);
        pack_patch(p, next, 0, &at, h, H);
    }
}

static int lstm_forward(const struct sequence_shape *s, const struct sequence_inputs *in, int nonlinearity, int peepholes,
                        const void *h0, const void *c0, const void *w_hh, const void *peephole, void *h, void *c, void *gates) {
    const idx H = s->H;
    struct lstm l = {{.s = *s, .weights = {times_weights(w_hh, 4, H)}}, nonlinearity, peepholes, .b = in->b, .h0 = h0,
                     .c0 = c0, .peephole = peephole, .h = h, .c = c, .gates = gates};
    struct steps *p = &l.steps;
    if (is_matrix(&l)) {
        p->weights[CELLS] = behind(H, times_weights(l.peephole, 2, H));
        p->weights[OUTPUT] = behind(H, times_weights(l.peephole + 2 * H * H, 1, H));
    }
    p->from_zeros = is_zero(h0, s->B * H) && (!is_matrix(&l) || is_zero(c0, s->B * H));
    if (share_of_inputs(s, in, 4, gates, 4 * H) != CNN_OK) return CNN_NO_MEMORY;
    if (begin_steps(p, is_matrix(&l) ? 2 * H : H) != CNN_OK) return CNN_NO_MEMORY;
    pack_state(p, p->packed[0], 0, h0);
    if (is_matrix(&l)) pack_state(p, p->packed[0], H, c0);
    for (; p->i < s->T; p->i++) {
        parallel_for(p->patches, p->grain, lstm_cells, &l);
        if (is_matrix(&l)) parallel_for(p->patches, p->grain, lstm_outputs, &l);
    }
    scratch_give(p->scratch);
    return CNN_OK;
}

/* ---- backward ---- */

struct lstm_row_backward {
    const REAL *gates, *c, *c_before, *d, *dpeep;   /* dpeep: what the peephole of o adds to dc, by a matrix, or NULL */
    REAL *da, *dc;
    idx unit, units;
};

/* d: the adjoint of h. */
INLINE void lstm_row_backward(const struct lstm *l, struct lstm_row_backward r) {
    const idx H = l->steps.s.H;
    for (idx j = 0; j < r.units; j += VL) {
        const idx n = r.units - j, u = r.unit + j;
        const REAL *gates = r.gates + j;
        const vr i = load_part(gates, n), f = load_part(gates + H, n), g = load_part(gates + 2 * H, n);
        const vr o = load_part(gates + 3 * H, n), d = load(r.d + j);
        const vr squashed = activated(load_part(r.c + j, n), l->nonlinearity);
        const vr da_o = d * squashed * o * (1 - o);
        vr dc = load_part(r.dc + j, n) + d * o * slope(squashed, l->nonlinearity) + peep(l, 2, u, n, da_o);
        if (r.dpeep) dc += load(r.dpeep + j);
        const vr da_i = dc * g * i * (1 - i), da_f = dc * load_part(r.c_before + j, n) * f * (1 - f);
        store_part(r.da + j, da_i, n);
        store_part(r.da + H + j, da_f, n);
        store_part(r.da + 2 * H + j, dc * i * (1 - g * g), n);
        if (!r.dpeep) store_part(r.da + 3 * H + j, da_o, n);
        store_part(r.dc + j, dc * f + peep(l, 0, u, n, da_i) + peep(l, 1, u, n, da_f), n);
    }
}

/* The adjoint of the state after step i, over the sums of the product by W_hh; dc gets what the matrices of i and f of the step
   after it gave. */
static void lstm_adjoints(const struct lstm *l, const struct patch *at, REAL *sums, const struct wanted *wanted) {
    const struct steps *p = &l->steps;
    const idx i = p->i, H = p->s.H, first = i + 1 < p->s.T;
    const REAL *after = l->da + (first ? offset_of(p, i + 1, 4 * H) : 0), *packed = p->packed[(i + 1) % 2];
    REAL *cells = sums + at->rows * p->width;
    if (first) multiply_state(p, &p->weights[STATE], (struct operand){packed, after, 4 * H}, at, sums, 0, wanted);
    if (first && is_matrix(l))
        multiply_state(p, &p->weights[CELLS], (struct operand){packed, after, 4 * H}, at, cells, 0, NULL);
    for (idx row = 0; row < at->rows; row++) {
        const idx b = at->row + row, state = b * H + at->unit;
        const REAL *dh = i < 0 ? NULL : l->dh + offset_of(p, i, H) + state;
        const int peeped = first && is_matrix(l) && alive(p, i + 1, b);
        for (idx j = 0; j < at->units; j += VL) {
            const idx n = at->units - j;
            REAL *d = sums + row * p->width, *dc = l->dc + state + j;
            store(d + j, adjoint_of_state(p, b, dh, p->s.lengths ? l->carried + state : NULL, d, j, n));
            if (peeped) store_part(dc, load_part(dc, n) + load(cells + row * p->width + j), n);
        }
    }
}

static void lstm_initial_adjoints(void *arg, idx begin, idx end, int worker) {
    (void)worker;
    const struct lstm *l = arg;
    const struct steps *p = &l->steps;
    REAL sums[PATCH_REALS] __attribute__((aligned(64)));
    for (idx number = begin; number < end; number++) {
        const struct patch at = patch_of(p, number);
        lstm_adjoints(l, &at, sums, NULL);
        for (idx row = 0; row < at.rows; row++)
            copy_reals(l->carried + (at.row + row) * p->s.H + at.unit, sums + row * p->width, at.units);
    }
}

/* Everything of a row once the adjoint d of its h is there; with dpeep the o gate's is done, and others may be reading it. */
static void lstm_gates_backward(const struct lstm *l, const struct patch *at, const REAL *sums, const REAL *dpeep) {
    const struct steps *p = &l->steps;
    const idx i = p->i, H = p->s.H, states = offset_of(p, i, H), gates = offset_of(p, i, 4 * H);
    const idx count = dpeep ? 3 : 4;
    const REAL *c_before = before(p, i, l->c0, l->c);
    for (idx row = 0; row < at->rows; row++) {
        const idx b = at->row + row, place = b * H + at->unit, gate = gates + b * 4 * H + at->unit;
        const REAL *d = sums + row * p->width;
        if (alive(p, i, b)) {
            lstm_row_backward(l, (struct lstm_row_backward){l->gates + gate, l->c + states + place, c_before + place, d,
                                                            dpeep ? dpeep + row * p->width : NULL, l->da + gate, l->dc + place,
                                                            at->unit, at->units});
            if (p->s.lengths) memset(l->carried + place, 0, sizeof(REAL) * (size_t)at->units);
        } else {
            keep_state(l, l->da + gate, count, 0, at->units, d, l->carried + place);
        }
    }
    for (idx g = 0; g < count; g++) pack_patch(p, p->packed[i % 2], g * H, at, l->da + gates + g * H, 4 * H);
}

static void lstm_cells_backward(void *arg, idx begin, idx end, int worker) {
    (void)worker;
    const struct lstm *l = arg;
    const struct steps *p = &l->steps;
    const idx H = p->s.H, gates = offset_of(p, p->i, 4 * H);
    REAL sums[PATCH_REALS] __attribute__((aligned(64)));
    for (idx number = begin; number < end; number++) {
        const struct patch at = patch_of(p, number);
        const struct wanted wanted[] = {rows_of(p, l->gates + gates, 4, &at), rows_of(p, l->da + gates, 4, &at),
                                        rows_of(p, l->dh + offset_of(p, p->i, H), 1, &at),
                                        rows_of(p, before(p, p->i, l->c0, l->c), 1, &at)};
        lstm_adjoints(l, &at, sums, wanted);
        lstm_gates_backward(l, &at, sums, NULL);
    }
}

/* The same in two regions, with matrices: the adjoint of c needs those of all output gates. h's waits in `carried`. */
static void lstm_outputs_backward(void *arg, idx begin, idx end, int worker) {
    (void)worker;
    const struct lstm *l = arg;
    const struct steps *p = &l->steps;
    const idx i = p->i, H = p->s.H, states = offset_of(p, i, H), gates = offset_of(p, i, 4 * H) + 3 * H;
    REAL sums[PATCH_REALS] __attribute__((aligned(64)));
    for (idx number = begin; number < end; number++) {
        const struct patch at = patch_of(p, number);
        lstm_adjoints(l, &at, sums, NULL);
        for (idx row = 0; row < at.rows; row++) {
            const idx b = at.row + row, place = b * H + at.unit, gate = gates + b * 4 * H + at.unit;
            for (idx j = 0; j < at.units; j += VL) {
                const idx n = at.units - j;
                const vr o = load_part(l->gates + gate + j, n), d = load(sums + row * p->width + j);
                const vr squashed = activated(load_part(l->c + states + place + j, n), l->nonlinearity);
                store_part(l->carried + place + j, d, n);
                store_part(l->da + gate + j, alive(p, i, b) ? d * squashed * o * (1 - o) : (vr){0}, n);
            }
        }
        pack_patch(p, p->packed[i % 2], 3 * H, &at, l->da + gates, 4 * H);
    }
}

static void lstm_cells_backward_matrix(void *arg, idx begin, idx end, int worker) {
    (void)worker;
    const struct lstm *l = arg;
    const struct steps *p = &l->steps;
    const idx i = p->i, H = p->s.H;
    REAL sums[PATCH_REALS] __attribute__((aligned(64)));
    for (idx number = begin; number < end; number++) {
        const struct patch at = patch_of(p, number);
        REAL *dpeep = sums + at.rows * p->width;
        const struct operand da_o = {p->packed[i % 2], l->da + offset_of(p, i, 4 * H) + 3 * H, 4 * H};
        multiply_state(p, &p->weights[OUTPUT], da_o, &at, dpeep, 0, NULL);
        for (idx row = 0; row < at.rows; row++)
            copy_reals(sums + row * p->width, l->carried + (at.row + row) * H + at.unit, at.units);
        lstm_gates_backward(l, &at, sums, dpeep);
    }
}

/* ---- the peepholes' adjoints ---- */

/* Σ da ⊙ c over steps and sequences: units are split. */
struct unit_peepholes { const struct lstm *l; REAL *dpeephole; };

static void unit_peepholes_adjoint(void *arg, idx begin, idx end, int worker) {
    (void)worker;
    const struct unit_peepholes *q = arg;
    const struct lstm *l = q->l;
    const struct steps *p = &l->steps;
    const idx H = p->s.H;
    for (idx u = begin * VL; u < MIN(H, end * VL); u += VL) {
        const idx n = H - u;
        vr sum[3] = {{0}};
        for (idx i = 0; i < p->s.T; i++)
            for (idx b = 0; b < p->s.B; b++) {
                const REAL *da = l->da + offset_of(p, i, 4 * H) + b * 4 * H + u;
                const vr c_before = load_part(before(p, i, l->c0, l->c) + b * H + u, n);
                sum[0] += load_part(da, n) * c_before;
                sum[1] += load_part(da + H, n) * c_before;
                sum[2] += load_part(da + 3 * H, n) * load_part(l->c + offset_of(p, i, H) + b * H + u, n);
            }
        for (idx k = 0; k < 3; k++) store_part(q->dpeephole + k * H + u, sum[k], n);
    }
}

static int peepholes_adjoint(const struct lstm *l, REAL *dpeephole) {
    const idx H = l->steps.s.H, rows = l->steps.s.T * l->steps.s.B;
    if (l->peepholes == ONE_PER_UNIT) {
        struct unit_peepholes q = {l, dpeephole};
        parallel_for((H + VL - 1) / VL, grain_of(3.0 * (double)(rows * VL)), unit_peepholes_adjoint, &q);
    } else if (is_matrix(l)) {
        if (weights_adjoint(&l->steps.s, 2, l->da, 4 * H, l->c0, l->c, dpeephole) != CNN_OK) return CNN_NO_MEMORY;
        return multiply((struct product){.M = H, .N = H, .K = rows, .a = l->da + 3 * H, .ars = 1, .acs = 4 * H, .b = l->c,
                                         .brs = H, .bcs = 1, .c = dpeephole + 2 * H * H, .crs = H, .ccs = 1});
    }
    return CNN_OK;
}

static int lstm_backward(const struct sequence_shape *s, int nonlinearity, int peepholes, const void *dh, const void *dc,
                         const void *h, const void *c, const void *gates, const void *h0, const void *c0, const void *w_hh,
                         const void *peephole, void *da, void *dh0, void *dc0, void *dw_hh, void *dpeephole) {
    const idx H = s->H;
    struct lstm l = {{.s = *s, .weights = {times_transposed(w_hh, 4, H)}}, nonlinearity, peepholes, .c0 = c0,
                     .peephole = peephole, .dh = dh, .c = (REAL *)c, .gates = (REAL *)gates, .da = da, .carried = dh0,
                     .dc = dc0};
    struct steps *p = &l.steps;
    if (is_matrix(&l)) {
        p->weights[CELLS] = times_transposed(l.peephole, 2, H);
        p->weights[OUTPUT] = behind(3 * H, times_transposed(l.peephole + 2 * H * H, 1, H));
    }
    if (begin_steps(p, 4 * H) != CNN_OK) return CNN_NO_MEMORY;
    memset(dh0, 0, sizeof(REAL) * (size_t)(s->B * H));
    memcpy(dc0, dc, sizeof(REAL) * (size_t)(s->B * H));
    for (p->i = s->T - 1; p->i >= 0; p->i--)
        if (is_matrix(&l)) {
            parallel_for(p->patches, p->grain, lstm_outputs_backward, &l);
            parallel_for(p->patches, p->grain, lstm_cells_backward_matrix, &l);
        } else parallel_for(p->patches, p->grain, lstm_cells_backward, &l);
    parallel_for(p->patches, p->grain, lstm_initial_adjoints, &l);
    scratch_give(p->scratch);
    if (weights_adjoint(s, 4, da, 4 * H, h0, h, dw_hh) != CNN_OK) return CNN_NO_MEMORY;
    return peepholes_adjoint(&l, dpeephole);
}
