/* Depthwise convolution of small maps, whose rows would leave most lanes of a vector idle: VL planes side by side. They are
   transposed into scratch, where lane i belongs to plane i, with the padding around them; a weight is a vector then, too. */

struct lanes_call {
    struct depthwise d;
    idx groups, PH, PW;              /* groups of VL channels; the padded image */
    idx worker_vectors;
    const idx *image_at, *dy_at;     /* where the elements of a plane go */
    vr *weights, *scratch;
};

enum { MOST_IMAGE_VECTORS = 384 };   /* of a padded image: it stays in the first-level cache with what is made of it */

enum { BY_ONES = 2 };   /* elements left over, at most, that cost less one by one than as another square to transpose */

/* n elements of each of `lanes` planes: element i goes to to[at[i]]. The last squares may overlap. */
INLINE void read_lanes(const int whole, const REAL *p, idx lanes, idx n, const idx *at, vr *to) {
    for (idx i = 0; i < n; i += VL) {
        const idx first = MAX(0, MIN(i, n - VL));
        if (whole && n - i <= BY_ONES) {
            for (; i < n; i++)
                for (idx l = 0; l < VL; l++) ((REAL *)(to + at[i]))[l] = p[l * n + i];
            return;
        }
        vr v[VL];
        const REAL *from = p + first;
#pragma GCC unroll 16
        for (idx l = 0; l < VL; l++, from += whole || l < lanes ? n : 0) {
            v[l] = whole ? load(from) : load_part(from, n);
            __builtin_prefetch(from + VL * n);
        }
        transpose(v);
#pragma GCC unroll 16
        for (idx l = 0; l < VL; l++) to[at[first + l]] = v[l];
    }
}
INLINE void write_lanes(const int whole, const vr *from, idx lanes, idx n, REAL *p) {
    for (idx i = 0; i < n; i += VL) {
        const idx first = MAX(0, MIN(i, n - VL));
        if (whole && n - i <= BY_ONES) {
            for (; i < n; i++)
                for (idx l = 0; l < VL; l++) p[l * n + i] = ((const REAL *)(from + i))[l];
            return;
        }
        REAL *to = p + first;
        vr v[VL];
#pragma GCC unroll 16
        for (idx l = 0; l < VL; l++) v[l] = from[first + l];
        transpose(v);
#pragma GCC unroll 16
        for (idx l = 0; l < VL; l++, to += n)
            if (whole) store(to, v[l]);
            else if (l < lanes) store_part(to, v[l], n);
    }
}
static void planes_to_lanes(const REAL *p, idx lanes, idx n, const idx *at, vr *to) {
    if (lanes == VL && n >= VL) read_lanes(1, p, lanes, n, at, to);
    else read_lanes(0, p, lanes, n, at, to);
}
static void lanes_to_planes(const vr *from, idx lanes, idx n, REAL *p) {
    if (lanes == VL && n >= VL) write_lanes(1, from, lanes, n, p);
    else write_lanes(0, from, lanes, n, p);
}

INLINE void convolve_lanes(const int K, const int n, const struct lanes_call *p, const vr *image, const vr *w, vr bias, vr *y) {
    vr sum[4];
#pragma GCC unroll 4
    for (int i = 0; i < n; i++) sum[i] = bias;
    for (int kh = 0; kh < K; kh++, image += p->PW)
#pragma GCC unroll 7
        for (int kw = 0; kw < K; kw++) {
            const vr weight = w[kh * K + kw];
#pragma GCC unroll 4
            for (int i = 0; i < n; i++) sum[i] += weight * image[i * p->d.S + kw];
        }
#pragma GCC unroll 4
    for (int i = 0; i < n; i++) y[i] = sum[i];
}

INLINE void convolve_groups(const int K, const struct lanes_call *p, idx begin, idx end, int worker) {
    const struct depthwise *d = &p->d;
    const idx in = d->H * d->W, pixels = d->OH * d->OW;
    vr *image = p->scratch + worker * p->worker_vectors, *y = image + p->PH * p->PW + 1;
    for (idx i = 0; i < p->PH * p->PW; i++) image[i] = (vr){0};
    for (idx i = begin; i < end; i++) {
        const idx channel = i % p->groups * VL, lanes = MIN(VL, d->outputs - channel);
        const idx plane = i / p->groups * d->outputs + channel;
        const vr *w = p->weights + channel / VL * K * K, bias = d->bias ? load_n(d->bias + channel, lanes) : (vr){0};
        planes_to_lanes(d->x + plane * in, lanes, in, p->image_at, image);
        for (idx oh = 0; oh < d->OH; oh++) {
            const vr *rows = image + oh * d->S * p->PW;
            vr *to = y + oh * d->OW;
            for (idx ow = 0; ow < d->OW; ow += 4) {
                const idx column = MIN(ow, d->OW - 4);   /* the last ones once more rather than fewer */
                if (column >= 0) convolve_lanes(K, 4, p, rows + column * d->S, w, bias, to + column);
                else for (idx c = 0; c < d->OW; c++) convolve_lanes(K, 1, p, rows + c * d->S, w, bias, to + c);
            }
        }
        lanes_to_planes(y, lanes, pixels, d->y + plane * pixels);
    }
}

/* `rows` rows of the kernel: as many as there are registers for. */
INLINE void weigh_lanes(const int K, const int rows, const struct lanes_call *p, const vr *image, const vr *dy, vr *sums) {
    const struct depthwise *d = &p->d;
    vr sum[9];
#pragma GCC unroll 9
    for (int k = 0; k < rows * K; k++) sum[k] = sums[k];
    for (idx oh = 0; oh < d->OH; oh++) {
        const vr *x = image + oh * d->S * p->PW;
        for (idx ow = 0; ow < d->OW; ow++, x += d->S) {
            const vr v = *dy++;
#pragma GCC unroll 3
            for (int kh = 0; kh < rows; kh++)
#pragma GCC unroll 7
                for (int kw = 0; kw < K; kw++) sum[kh * K + kw] += v * x[kh * p->PW + kw];
        }
    }
#pragma GCC unroll 9
    for (int k = 0; k < rows * K; k++) sums[k] = sum[k];
}

/* All images for the groups [begin, end) of channels. */
INLINE void weigh_groups(const int K, const struct lanes_call *p, idx begin, idx end, int worker) {
    const int rows = K == 3 ? 3 : 1;
    const struct depthwise *d = &p->d;
    const idx in = d->H * d->W, pixels = d->OH * d->OW;
    vr *image = p->scratch + worker * p->worker_vectors, *dy = image + p->PH * p->PW + 1;
    for (idx i = 0; i < p->PH * p->PW; i++) image[i] = (vr){0};
    for (idx g = begin; g < end; g++) {
        const idx channel = g * VL, lanes = MIN(VL, d->outputs - channel);
        vr sums[49] = {{0}};
        for (idx n = 0; n < d->N; n++) {
            const idx plane = n * d->outputs + channel;
            planes_to_lanes(d->x + plane * in, lanes, in, p->image_at, image);
            planes_to_lanes(d->dy + plane * pixels, lanes, pixels, p->dy_at, dy);
            for (int kh = 0; kh < K; kh += rows) weigh_lanes(K, rows, p, image + kh * p->PW, dy, sums + kh * K);
        }
        for (idx k = 0; k < K * K; k++)
            for (idx l = 0; l < lanes; l++) d->y[(channel + l) * K * K + k] = sums[k][l];
    }
}

#define LANES_KERNELS(K) \
    static void convolve_groups_##K(void *p, idx begin, idx end, int worker) { convolve_groups(K, p, begin, end, worker); } \
    static void weigh_groups_##K(void *p, idx begin, idx end, int worker) { weigh_groups(K, p, begin, end, worker); }
LANES_KERNELS(3) LANES_KERNELS(5) LANES_KERNELS(7)
static const range_body convolve_group_bodies[] = {convolve_groups_3, convolve_groups_5, convolve_groups_7};
static const range_body weigh_group_bodies[] = {weigh_groups_3, weigh_groups_5, weigh_groups_7};

static idx padded_height(const struct depthwise *d) { return (d->OH - 1) * d->S + d->K; }
static idx padded_width(const struct depthwise *d) { return (d->OW - 1) * d->S + d->K; }

/* One output channel per input channel, channels that fill the lanes, rows that do not. */
static int prefers_lanes(const struct depthwise *d) {
    const idx image = padded_height(d) * padded_width(d);
    return d->inputs == d->outputs && 4 * round_up(d->outputs, VL) <= 5 * d->outputs && 2 * d->OW <= VL
        && image <= MOST_IMAGE_VECTORS;
}

/* What lies outside of what the kernel sees goes behind it. */
static void fill_places(const struct lanes_call *p, idx *image_at, idx *dy_at) {
    const struct depthwise *d = &p->d;
    for (idx i = 0; i < MAX(VL, d->H * d->W); i++) {
        const idx row = i / MAX(1, d->W) + d->top, column = i % MAX(1, d->W) + d->left;
        const int seen = i < d->H * d->W && row >= 0 && row < p->PH && column >= 0 && column < p->PW;
        image_at[i] = seen ? row * p->PW + column : p->PH * p->PW;
    }
    for (idx i = 0; i < MAX(VL, d->OH * d->OW); i++) dy_at[i] = i;
}

static void fill_weights(const struct lanes_call *p, int turned) {
    const idx taps = p->d.K * p->d.K;
    REAL *to = (REAL *)p->weights;
    for (idx g = 0; g < p->groups; g++)
        for (idx k = 0; k < taps; k++)
            for (idx l = 0; l < VL; l++) {
                const idx channel = g * VL + l, tap = turned ? taps - 1 - k : k;
                *to++ = channel < p->d.outputs ? p->d.w[channel * taps + tap] : 0;
            }
}

/* Forward with the kernel as it is or turned by 180 degrees; with dy, the gradient of the weights. */
static int run_lanes(const struct depthwise *d, range_body body, int turned) {
    struct lanes_call p = {.d = *d, .groups = ceil_div(d->outputs, VL), .PH = padded_height(d), .PW = padded_width(d)};
    const idx taps = d->K * d->K, in = MAX(VL, d->H * d->W), out = MAX(VL, d->OH * d->OW);
    const idx items = p.groups * (d->dy ? 1 : d->N);
    const idx grain = grain_of((double)(d->OH * d->OW) * (double)(taps + 8) * (double)(d->dy ? d->N : 1));
    const size_t weights = sizeof(vr) * (size_t)(p.groups * taps), places = sizeof(idx) * (size_t)round_up(in + out, 8);
    p.worker_vectors = p.PH * p.PW + 1 + out;
    char *scratch = scratch_take(weights + places + sizeof(vr) * (size_t)(p.worker_vectors * parallel_workers(items, grain)));
    if (!scratch) return CNN_NO_MEMORY;
    idx *places_of = (idx *)(scratch + weights);
    fill_places(&p, places_of, places_of + in);
    p.image_at = places_of, p.dy_at = places_of + in;
    p.weights = (vr *)scratch, p.scratch = (vr *)(scratch + weights + places);
    if (!d->dy) fill_weights(&p, turned);
    parallel_for(items, grain, body, &p);
    scratch_give(scratch);
    return CNN_OK;
}
