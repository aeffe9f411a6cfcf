/* GRU. With the reset gate after the product a step is one region; before it, as in the paper, two: the candidate of every unit
   needs r ⊙ h of all units. Packed rows are h and q, backward the adjoints of r, z and of W_hn's product; included by
   recurrent.c. */

enum { RESET_UPDATE, CANDIDATE };   /* the products: by W_hr and W_hz, by W_hn */

struct gru {
    struct steps steps;
    int reset_after;
    const REAL *h0, *b, *b_hh, *dh;
    REAL *h, *gates;             /* gates hold the inputs' share before their step; backward reads both */
    REAL *da, *dq, *carried;     /* dq: the adjoint of q */
};

static idx gru_gates(const struct gru *g, idx b, idx unit) {   /* places of r in (T, B, 4H) and (T, B, 3H) */
    return offset_of(&g->steps, g->steps.i, 4 * g->steps.s.H) + b * 4 * g->steps.s.H + unit;
}
static idx gru_inputs(const struct gru *g, idx b, idx unit) {
    return offset_of(&g->steps, g->steps.i, 3 * g->steps.s.H) + b * 3 * g->steps.s.H + unit;
}
/* W_ih x + b_ih: of this step, as long as gates hold the inputs' share. */
INLINE vr gru_input(const struct gru *g, const REAL *gates, idx gate, idx unit, idx n) {
    return load_part(gates + gate * g->steps.s.H, n) + bias_of(&g->steps, g->b, gate, unit, n);
}
INLINE vr gru_product(const struct gru *g, const REAL *sums, idx gate, idx unit, idx n) {
    return load(sums) + bias_of(&g->steps, g->b_hh, gate, unit, n);
}

/* ---- forward ---- */

/* r, z and q; with the reset gate after the product n and h too, else they follow in gru_candidates. */
static void gru_cells(void *arg, idx begin, idx end, int worker) {
    (void)worker;
    const struct gru *g = arg;
    const struct steps *p = &g->steps;
    const idx i = p->i, H = p->s.H, W = p->width;
    const REAL *h_before = before(p, i, g->h0, g->h);
    REAL *h = g->h + offset_of(p, i, H), *next = p->packed[(i + 1) % 2], sums[PATCH_REALS] __attribute__((aligned(64)));
    for (idx number = begin; number < end; number++) {
        const struct patch at = patch_of(p, number);
        REAL *z_sums = sums + at.rows * W, *q_sums = z_sums + at.rows * W;
        const struct operand state = state_before(p, h_before);
        const struct wanted wanted[] = {rows_of(p, g->gates + gru_gates(g, 0, 0), 4, &at), rows_of(p, h_before, 1, &at),
                                        rows_of(p, h, 1, &at)};
        multiply_state(p, &p->weights[RESET_UPDATE], state, &at, sums, 0, wanted);
        if (g->reset_after) multiply_state(p, &p->weights[CANDIDATE], state, &at, q_sums, 0, wanted + 2);
        for (idx row = 0; row < at.rows; row++) {
            const idx b = at.row + row, place = b * H + at.unit;
            REAL *gates = g->gates + gru_gates(g, b, at.unit);
            if (!alive(p, i, b)) {
                for (idx k = 0; k < 4; k++) memset(gates + k * H, 0, sizeof(REAL) * (size_t)at.units);
                copy_reals(h + place, h_before + place, at.units);
                continue;
            }
            for (idx j = 0; j < at.units; j += VL) {
                const idx n = at.units - j, u = at.unit + j, x = row * W + j;
                const vr old = load_part(h_before + place + j, n);
                const vr r = vsigmoid(gru_input(g, gates + j, 0, u, n) + gru_product(g, sums + x, 0, u, n));
                const vr z = vsigmoid(gru_input(g, gates + j, 1, u, n) + gru_product(g, z_sums + x, 1, u, n));
                const vr q = g->reset_after ? gru_product(g, q_sums + x, 2, u, n) : r * old;
                store_part(gates + j, r, n);
                store_part(gates + H + j, z, n);
                store_part(gates + 3 * H + j, q, n);
                if (!g->reset_after) continue;
                const vr candidate = vtanh(gru_input(g, gates + j, 2, u, n) + r * q);
                store_part(gates + 2 * H + j, candidate, n);
                store_part(h + place + j, z * old + (1 - z) * candidate, n);
            }
        }
        if (g->reset_after) pack_patch(p, next, 0, &at, h, H);
        else pack_patch(p, next, H, &at, g->gates + gru_gates(g, 0, 3 * H), 4 * H);
    }
}

static void gru_candidates(void *arg, idx begin, idx end, int worker) {
    (void)worker;
    const struct gru *g = arg;
    const struct steps *p = &g->steps;
    const idx i = p->i, H = p->s.H;
    const REAL *h_before = before(p, i, g->h0, g->h);
    REAL *h = g->h + offset_of(p, i, H), *next = p->packed[(i + 1) % 2], sums[PATCH_REALS] __attribute__((aligned(64)));
    for (idx number = begin; number < end; number++) {
        const struct patch at = patch_of(p, number);
        const struct operand q = {next, g->gates + gru_gates(g, 0, 3 * H), 4 * H};
        const struct wanted wanted = rows_of(p, h, 1, &at);
        multiply_state(p, &p->weights[CANDIDATE], q, &at, sums, 0, &wanted);
        for (idx row = 0; row < at.rows; row++) {
            const idx b = at.row + row, place = b * H + at.unit;
            REAL *gates = g->gates + gru_gates(g, b, at.unit);
            for (idx j = 0; j < at.units && alive(p, i, b); j += VL) {
                const idx n = at.units - j, u = at.unit + j;
                const vr a = gru_product(g, sums + row * p->width + j, 2, u, n), z = load_part(gates + H + j, n);
                const vr candidate = vtanh(gru_input(g, gates + j, 2, u, n) + a);
                store_part(gates + 2 * H + j, candidate, n);
                store_part(h + place + j, z * load_part(h_before + place + j, n) + (1 - z) * candidate, n);
            }
        }
        pack_patch(p, next, 0, &at, h, H);
    }
}

static int gru_forward(const struct sequence_shape *s, const struct sequence_inputs *in, int reset_after, const void *h0,
                       const void *w_hh, const void *b_hh, void *h, void *gates) {
    const idx H = s->H;
    struct gru g = {{.s = *s, .weights = {times_weights(w_hh, 2, H), times_weights((const REAL *)w_hh + 2 * H * H, 1, H)}},
                    reset_after, .h0 = h0, .b = in->b, .b_hh = b_hh, .h = h, .gates = gates};
    struct steps *p = &g.steps;
    if (!reset_after) p->weights[CANDIDATE].first = H;
    p->from_zeros = is_zero(h0, s->B * H);
    if (share_of_inputs(s, in, 3, gates, 4 * H) != CNN_OK) return CNN_NO_MEMORY;
    if (begin_steps(p, reset_after ? H : 2 * H) != CNN_OK) return CNN_NO_MEMORY;
    pack_state(p, p->packed[0], 0, h0);
    for (; p->i < s->T; p->i++) {
        parallel_for(p->patches, p->grain, gru_cells, &g);
        if (!reset_after) parallel_for(p->patches, p->grain, gru_candidates, &g);
    }
    scratch_give(p->scratch);
    return CNN_OK;
}

/* ---- backward ---- */

/* da_n and da_z; with the reset gate after the product da_r too, else it follows in gru_resets_backward. With i = -1, before
   the first step, only the state's adjoint is left to do. */
static void gru_cells_backward(void *arg, idx begin, idx end, int worker) {
    (void)worker;
    const struct gru *g = arg;
    const struct steps *p = &g->steps;
    const idx i = p->i, H = p->s.H, later = i + 1 < p->s.T;
    const REAL *da_after = g->da + (later ? offset_of(p, i + 1, 3 * H) : 0), *packed = p->packed[(i + 1) % 2];
    const REAL *dq_after = later && g->reset_after ? g->dq + offset_of(p, i + 1, H) : NULL;
    const REAL *h_before = before(p, MAX(0, i), g->h0, g->h);
    const idx first = i < 0 ? 0 : offset_of(p, i, H);
    REAL sums[PATCH_REALS] __attribute__((aligned(64)));
    for (idx number = begin; number < end; number++) {
        const struct patch at = patch_of(p, number);
        const struct wanted wanted[] = {rows_of(p, g->gates + 4 * first, 4, &at), rows_of(p, g->da + 3 * first, 3, &at),
                                        rows_of(p, g->dh + first, 1, &at), rows_of(p, h_before, 1, &at),
                                        rows_of(p, g->reset_after ? g->dq + first : g->da, 1, &at)};
        if (later)
            multiply_state(p, &p->weights[RESET_UPDATE], (struct operand){packed, da_after, 3 * H}, &at, sums, 0, wanted);
        if (later && g->reset_after)
            multiply_state(p, &p->weights[CANDIDATE], (struct operand){packed, dq_after, H}, &at, sums, 1, wanted + 2);
        for (idx row = 0; row < at.rows; row++) {
            const idx b = at.row + row, place = b * H + at.unit;
            const REAL *dh = i < 0 ? NULL : g->dh + offset_of(p, i, H) + place;
            const int working = i >= 0 && alive(p, i, b);
            for (idx j = 0; j < at.units; j += VL) {
                const idx n = at.units - j;
                const vr d = adjoint_of_state(p, b, dh, g->carried + place, sums + row * p->width, j, n);
                vr kept = d, da_n = {0}, da_z = {0}, da_r = {0}, dq = {0};
                if (working) {
                    const REAL *gates = g->gates + gru_gates(g, b, at.unit) + j;
                    const vr r = load_part(gates, n), z = load_part(gates + H, n), candidate = load_part(gates + 2 * H, n);
                    da_n = d * (1 - z) * (1 - candidate * candidate);
                    da_z = d * (load_part(h_before + place + j, n) - candidate) * z * (1 - z);
                    dq = da_n * r, da_r = da_n * load_part(gates + 3 * H, n) * r * (1 - r);
                    kept = d * z;
                }
                store_part(g->carried + place + j, kept, n);
                if (i < 0) continue;
                REAL *da = g->da + gru_inputs(g, b, at.unit) + j;
                store_part(da + H, da_z, n);
                store_part(da + 2 * H, da_n, n);
                if (!g->reset_after) continue;
                store_part(da, da_r, n);
                store_part(g->dq + offset_of(p, i, H) + place + j, dq, n);
            }
        }
        if (i < 0) continue;
        const REAL *da = g->da + gru_inputs(g, 0, 0);
        REAL *next = p->packed[i % 2];
        pack_patch(p, next, H, &at, da + H, 3 * H);
        if (g->reset_after) {
            pack_patch(p, next, 0, &at, da, 3 * H);
            pack_patch(p, next, 2 * H, &at, g->dq + offset_of(p, i, H), H);
        } else pack_patch(p, next, 2 * H, &at, da + 2 * H, 3 * H);
    }
}

/* dq = da_n W_hn is needed only here: its place is `sums`. */
static void gru_resets_backward(void *arg, idx begin, idx end, int worker) {
    (void)worker;
    const struct gru *g = arg;
    const struct steps *p = &g->steps;
    const idx i = p->i, H = p->s.H;
    const REAL *h_before = before(p, i, g->h0, g->h);
    REAL *next = p->packed[i % 2], *da_n = g->da + gru_inputs(g, 0, 2 * H), sums[PATCH_REALS] __attribute__((aligned(64)));
    for (idx number = begin; number < end; number++) {
        const struct patch at = patch_of(p, number);
        multiply_state(p, &p->weights[CANDIDATE], (struct operand){next, da_n, 3 * H}, &at, sums, 0, NULL);
        for (idx row = 0; row < at.rows; row++) {
            const idx b = at.row + row, place = b * H + at.unit;
            REAL *da = g->da + gru_inputs(g, b, at.unit);
            for (idx j = 0; j < at.units; j += VL) {
                const idx n = at.units - j;
                const vr r = load_part(g->gates + gru_gates(g, b, at.unit) + j, n), dq = load(sums + row * p->width + j);
                const int working = alive(p, i, b);
                store_part(da + j, working ? dq * load_part(h_before + place + j, n) * r * (1 - r) : (vr){0}, n);
                if (working) store_part(g->carried + place + j, load_part(g->carried + place + j, n) + dq * r, n);
            }
        }
        pack_patch(p, next, 0, &at, g->da + gru_inputs(g, 0, 0), 3 * H);
    }
}

/* dw_hh and db_hh. */
static int gru_parameters_adjoint(const struct gru *g, const REAL *h0, REAL *dw, REAL *db) {
    const struct sequence_shape *s = &g->steps.s;
    const idx H = s->H, rows = s->T * s->B;
    const REAL *da_n = g->da + 2 * H;
    linear_backward_bias(rows, 3 * H, g->da, db);
    if (weights_adjoint(s, 2, g->da, 3 * H, h0, g->h, dw) != CNN_OK) return CNN_NO_MEMORY;
    if (g->reset_after) {
        linear_backward_bias(rows, H, g->dq, db + 2 * H);
        return weights_adjoint(s, 1, g->dq, H, h0, g->h, dw + 2 * H * H);
    }
    return multiply((struct product){.M = H, .N = H, .K = rows, .a = da_n, .ars = 1, .acs = 3 * H, .b = g->gates + 3 * H,
                                     .brs = 4 * H, .bcs = 1, .c = dw + 2 * H * H, .crs = H, .ccs = 1});
}

static int gru_backward(const struct sequence_shape *s, int reset_after, const void *dh, const void *h, const void *gates,
                        const void *h0, const void *w_hh, void *da, void *dh0, void *dw_hh, void *db_hh) {
    const idx H = s->H;
    const REAL *w_n = (const REAL *)w_hh + 2 * H * H;
    const struct weights candidate = behind(2 * H, times_transposed(w_n, 1, H));
    struct gru g = {{.s = *s, .weights = {times_transposed(w_hh, 2, H), in_pieces(3, candidate)}}, reset_after, .h0 = h0,
                    .dh = dh, .h = (REAL *)h, .gates = (REAL *)gates, .da = da, .carried = dh0};
    struct steps *p = &g.steps;
    if (begin_steps(p, 3 * H) != CNN_OK) return CNN_NO_MEMORY;
    if (reset_after && !(g.dq = scratch_take(sizeof(REAL) * (size_t)(s->T * s->B * H)))) {
        scratch_give(p->scratch);
        return CNN_NO_MEMORY;
    }
    memset(dh0, 0, sizeof(REAL) * (size_t)(s->B * H));
    for (p->i = s->T - 1; p->i >= -1; p->i--) {
        parallel_for(p->patches, p->grain, gru_cells_backward, &g);
        if (!reset_after && p->i >= 0) parallel_for(p->patches, p->grain, gru_resets_backward, &g);
    }
    scratch_give(p->scratch);
    const int status = gru_parameters_adjoint(&g, h0, dw_hh, db_hh);
    scratch_give(g.dq);
    return status;
}
