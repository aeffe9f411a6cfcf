/* Convolutions of stride 2: even and odd pixels, rows and columns apart, are four images of which each meets its own taps with
   stride 1. Of a kernel up to 4 x 4 these are up to 2 x 2, and F(4 x 4, 2 x 2) takes 25 multiplications for 16 outputs, four
   times: 100 where 4 x 4 taps take 256, and 81 instead of 144 for 3 x 3 taps, where half of the rows and columns have only one
   tap, which is 0 at infinity.

   Forward, the four parts are summed. Backward-input, each part gives its quarter of dx: even and odd rows, even and odd
   columns. The points are a, -a, b, -b and infinity, with a = 1/2 and b = 3/2: they round less than such with 0. N(a) = -2,
   N(-a) = 2, N(b) = 6, N(-b) = -6. */

enum { PAIR = 2, PAIR_POINTS = 5 };

INLINE void pair_input(vr *d) {
    const REAL aa = (REAL)0.25, bb = (REAL)2.25;
    vr d0 = d[0], d1 = d[1], d2 = d[2], d3 = d[3];
    vr even_a = d2 - bb * d0, odd_a = d3 - bb * d1, even_b = d2 - aa * d0, odd_b = d3 - aa * d1;
    d[0] = odd_a + (REAL)0.5 * even_a;
    d[1] = odd_a - (REAL)0.5 * even_a;
    d[2] = odd_b + (REAL)1.5 * even_b;
    d[3] = odd_b - (REAL)1.5 * even_b;
    d[4] = d[4] - (aa + bb) * d2 + aa * bb * d0;
}

INLINE void pair_output(vr *m) {
    const REAL aa = (REAL)0.25, bb = (REAL)2.25;
    vr even_a = m[0] + m[1], odd_a = (REAL)0.5 * (m[0] - m[1]), even_b = m[2] + m[3], odd_b = (REAL)1.5 * (m[2] - m[3]);
    m[0] = even_a + even_b;
    m[1] = odd_a + odd_b;
    m[2] = aa * even_a + bb * even_b;
    m[3] = aa * odd_a + bb * odd_b + m[4];
}

INLINE void pair_filter(const vr *g, vr *u) {
    const REAL ca = (REAL)(1 / 2.), cb = (REAL)(1 / 6.);
    vr even_a = ca * g[0], odd_a = (ca * (REAL)0.5) * g[1], even_b = cb * g[0], odd_b = (cb * (REAL)1.5) * g[1];
    u[0] = -even_a - odd_a;
    u[1] = even_a - odd_a;
    u[2] = even_b + odd_b;
    u[3] = odd_b - even_b;
    u[4] = g[1];
}

static void input_of_pairs(const struct winograd *p, idx first, idx tiles, idx term, REAL *v, REAL *scratch) {
    if (p->step == 2) transform_tiles(pair_input, PAIR_POINTS, 2, p, first, tiles, term, v, scratch);
    else transform_tiles(pair_input, PAIR_POINTS, 1, p, first, tiles, term, v, scratch);
}
static void weights_of_pairs(const struct winograd *p, idx f, idx m, REAL *u) {
    transform_panel(pair_filter, PAIR_POINTS, PAIR, p, f, m, u);
}
static void output_of_pairs(const struct winograd *p, idx first, idx tiles, idx f, const REAL *m, REAL *lines) {
    for (idx o = 0; o < p->outputs; o++)
        transform_products(pair_output, PAIR_POINTS, p, tiles, p->bias ? p->bias[f] : 0, m + o * p->block * p->piece,
                           lines + o * TILE * p->line);
    write_lines(p, first, tiles, f, lines);
}
static const struct filter pairs_of_taps = {PAIR_POINTS, PAIR, input_of_pairs, weights_of_pairs, output_of_pairs};

/* The even or odd taps of K (phase 0 or 1), forward: pixel 2 i + k - padding meets tap k. */
static struct taps taps_forward(idx K, idx padding, idx phase) {
    return (struct taps){phase - padding, phase, 2, (K - phase + 1) / 2};
}
/* Those that send to the even or odd pixels of dx: pixel 2 i + phase gets tap k of dy at i + (phase + padding - k) / 2. */
static struct taps taps_backward(idx K, idx padding, idx phase) {
    idx first = (phase + padding) % 2, count = (K - first + 1) / 2;
    return (struct taps){(phase + padding - first) / 2 - count + 1, first + 2 * (count - 1), -2, count};
}

static int winograd_strided_forward(const struct conv_shape *s, const REAL *x, const REAL *w, const REAL *b, REAL *y) {
    idx C = s->C / s->groups, F = s->F / s->groups, taps = s->KH * s->KW;
    struct taps rows[] = {taps_forward(s->KH, s->top, 0), taps_forward(s->KH, s->top, 1)};
    struct taps columns[] = {taps_forward(s->KW, s->left, 0), taps_forward(s->KW, s->left, 1)};
    int status = CNN_OK;
    for (idx g = 0; g < s->groups && status == CNN_OK; g++)
        status = winograd((struct winograd){
            .filter = &pairs_of_taps, .C = C, .H = s->H, .W = s->W, .F = F, .OH = s->OH, .OW = s->OW, .step = 2,
            .x = x + g * C * s->H * s->W, .x_image = s->C * s->H * s->W, .outputs = 1, .parts = 4,
            .part = {{rows[0], columns[1]}, {rows[0], columns[0]}, {rows[1], columns[0]}, {rows[1], columns[1]}},   /* what is */
            .w = w + g * F * C * taps, .w_out = C * taps, .w_in = taps, .KH = s->KH, .KW = s->KW,   /* 0 comes first or last */
            .bias = b ? b + g * F : NULL, .y = y + g * F * s->OH * s->OW, .y_image = s->F * s->OH * s->OW,
            .y_channel = s->OH * s->OW, .y_row = s->OW, .tiling = tiling_of(s->N, s->OH, s->OW)});
    return status;
}

/* The quarters of dx, as with 3 x 3 taps and a padding of 1. Then they come from one pass, else two by two. */
static int all_see_the_same_dy(const struct conv_shape *s) {
    return taps_backward(s->KH, s->top, 0).start == taps_backward(s->KH, s->top, 1).start
        && taps_backward(s->KW, s->left, 0).start == taps_backward(s->KW, s->left, 1).start;
}

static int winograd_strided_backward_input(const struct conv_shape *s, const REAL *dy, const REAL *w, REAL *dx) {
    idx C = s->C / s->groups, F = s->F / s->groups, taps = s->KH * s->KW;
    struct taps columns[] = {taps_backward(s->KW, s->left, 0), taps_backward(s->KW, s->left, 1)};
    struct taps rows[] = {taps_backward(s->KH, s->top, 0), taps_backward(s->KH, s->top, 1)};
    idx passes = all_see_the_same_dy(s) ? 1 : 2, outputs = 4 / passes;
    int status = CNN_OK;
    for (idx i = 0; i < passes * s->groups && status == CNN_OK; i++) {
        idx g = i / passes, phase = i % passes, OH = (s->H - phase + passes - 1) / passes;
        status = winograd((struct winograd){
            .filter = &pairs_of_taps, .C = F, .H = s->OH, .W = s->OW, .F = C, .OH = OH, .OW = s->W, .step = 1,
            .x = dy + g * F * s->OH * s->OW, .x_image = s->F * s->OH * s->OW, .outputs = outputs, .parts = outputs,
            .part = {{rows[phase], columns[0]}, {rows[phase], columns[1]}, {rows[1], columns[0]}, {rows[1], columns[1]}},
            .w = w + g * F * C * taps, .w_out = taps, .w_in = C * taps, .KH = s->KH, .KW = s->KW,
            .y = dx + g * C * s->H * s->W + phase * s->W, .y_image = s->C * s->H * s->W, .y_channel = s->H * s->W,
            .y_row = passes * s->W, .tiling = tiling_of(s->N, (s->H - phase + 1) / 2, ceil_div(s->W, 2))});
    }
    return status;
}
