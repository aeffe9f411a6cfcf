/* Recurrent layers, one direction, all steps. Formulas and adjoints: cnnlib/ops/recurrent.py.

   A step is a small product, the state before it (B, H) times the weights, and then the gates' non-linearities: one kernel.

     - A warp computes the sums of one to four units, all their gates, for BATCH sequences. Its lanes stand along K, the terms of
       the sums: 32 neighbours of a row of weights are one transfer. A weight is multiplied for BATCH sequences, a number of the
       state for up to four rows, and a sum lives in a register. At the end the lanes' shares are added by exchanging halves:
       each lane gives half of its sums away and takes the other half of its partner's, so 64 sums take 62 exchanges, not 320.
     - Where sums are long and warps few, several warps share the terms of the same sums; their results are added in order.
     - The sums go to shared memory, and the block's threads take a cell (sequence, unit) each, neighbours neighbouring units.
     - One sequence or few take BATCH = 1 or 4: then a step is reading the weights once, by all the GPU.

   One launch runs through all steps, in one of two ways.

     - Without `barrier` a block has all units of its sequences, and nobody else's state matters to it. For small layers.
     - With one, the blocks share the units, and none begins a step before all have finished the one before: they `meet`. So all
       of them must be on the GPU at the same time. It is a cooperative launch, of no more blocks than fit at once; where there
       is more to do, a block does several groups of units one after the other.

   Two products of a step cannot be one where the second needs the first of all units: a GRU with the reset gate before the
   product (W_hn (r h)), and peepholes that are matrices (P_o c). There the blocks meet in the middle of a step, too.

   Backward, the product takes the transposed weights, so that rows are read as in forward; at step i it takes the adjoints da of
   step i + 1, and `carried` holds what went from there to the state before without a product. Steps are numbered in the order
   of forward's work; i = -1 is the state before all steps, and only its adjoint is left to do. */

#include "cuda.cuh"

enum { MOST_SUMS = 512 };   /* of a block: 4 rows times BATCH for each of its warps */
enum { TANH, RELU, SIGMOID, IDENTITY };

/* What all kernels are told first. */
struct steps { idx splits, T, B, H, reverse; const idx *lengths; word *barrier; };

#define STEPS_PARAMETERS idx splits, idx T, idx B, idx H, idx reverse, const idx *__restrict__ lengths, word *barrier
#define STEPS {splits, T, B, H, reverse, lengths, barrier}

static __device__ __forceinline__ idx time_of(const steps &s, idx i) { return s.reverse ? s.T - 1 - i : i; }
static __device__ __forceinline__ bool alive(const steps &s, idx i, idx b) { return !s.lengths || time_of(s, i) < s.lengths[b]; }
static __device__ __forceinline__ idx row_of(const steps &s, idx i, idx b) { return time_of(s, i) * s.B + b; }
static __device__ __forceinline__ const REAL *before(const steps &s, idx i, const REAL *start, const REAL *states) {
    return i ? states + row_of(s, i - 1, 0) * s.H : start;
}

static __device__ __forceinline__ REAL sigmoid_of(REAL x) {
    const REAL e = exp(-fabs(x));
    return (x > 0 ? 1 : e) / (1 + e);
}

/* ---- the blocks together ---- */

/* All blocks wait here for the last of them, and see what the others wrote before. The word `barrier` is 0 at first. Each block
   adds 1 to it, the first one what is missing to 2^31: when all have, the upper bit has turned and the others are 0 again, ready
   for the next time. The fence before lets the others see what this block wrote; the one after drops what this multiprocessor
   still has in its own cache. Both hold for the whole block, whose other threads wait at __syncthreads(). */
static __device__ void meet(const steps &s) {
    if (!s.barrier) return;   /* the block has what it needs: FOR_UNITS ends with all of its threads together */
    __syncthreads();
    if (threadIdx.x == 0) {
        __threadfence();
        const word old = atomicAdd(s.barrier, blockIdx.x ? 1u : 0x80000000u - (gridDim.x - 1));
        while ((old ^ *(volatile word *)s.barrier) >> 31 == 0) __nanosleep(32);
        __threadfence();
    }
    __syncthreads();
}

/* ---- the product ---- */

/* Rows (gate, unit) of weights times rows b of x: terms k < K. */
struct product { const REAL *w; idx of_gate, of_unit; const REAL *x; idx of_row, K; };

/* Of the warp's N sums, each lane has its share of the terms. Lanes that are `HALF` apart exchange; the last step leaves what a
   lane then has complete, each sum by one lane at least. */
template <int N, int HALF> static __device__ __forceinline__ void exchange(REAL *v, REAL *sums) {
    if constexpr (HALF == 0) {
#pragma unroll
        for (int j = 0; j < N; j++) sums[j] = v[j];
    } else if constexpr (N % 2) {   /* too few to share: both add up all */
#pragma unroll
        for (int j = 0; j < N; j++) v[j] += __shfl_xor_sync(0xffffffff, v[j], HALF);
        exchange<N, HALF / 2>(v, sums);
    } else {
        const bool upper = threadIdx.x & HALF;
#pragma unroll
        for (int j = 0; j < N / 2; j++) {
            const REAL given = upper ? v[j] : v[j + N / 2], kept = upper ? v[j + N / 2] : v[j];
            v[j] = kept + __shfl_xor_sync(0xffffffff, given, HALF);
        }
        exchange<N / 2, HALF / 2>(v, upper ? sums + N / 2 : sums);
    }
}

/* Leaves sums[((warp * UNITS + unit) * GATES + gate) * BATCH + b] of the warp's share of the terms: `splits` warps share units.
   The block's first unit and sequence are given. */
template <int UNITS, int GATES, int BATCH>
static __device__ void multiply(const steps &s, const product &p, idx unit0, idx b0, REAL *sums) {
    constexpr int all = UNITS * GATES * BATCH;
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, splits = (int)s.splits;
    int w[UNITS * GATES], x[BATCH];   /* where the rows begin; beyond the last unit or sequence it is the last, and never used */
#pragma unroll
    for (int u = 0; u < UNITS; u++) {
        const idx unit = unit0 + warp / splits * UNITS + u, there = unit < s.H ? unit : s.H - 1;
#pragma unroll
        for (int g = 0; g < GATES; g++) w[u * GATES + g] = (int)(g * p.of_gate + there * p.of_unit);
    }
#pragma unroll
    for (int b = 0; b < BATCH; b++) x[b] = (int)((b0 + b < s.B ? b0 + b : s.B - 1) * p.of_row);

    REAL v[all] = {};
#pragma unroll(BATCH > 4 ? 1 : 4)
    for (int k = warp % splits * 32 + lane, K = (int)p.K; k < K; k += 32 * splits) {
        REAL of_w[UNITS * GATES];
#pragma unroll
        for (int r = 0; r < UNITS * GATES; r++) of_w[r] = p.w[w[r] + k];
#pragma unroll
        for (int b = 0; b < BATCH; b++) {
            const REAL of_x = p.x[x[b] + k];
#pragma unroll
            for (int r = 0; r < UNITS * GATES; r++) v[r * BATCH + b] += of_w[r] * of_x;
        }
    }

    exchange<all, 16>(v, sums + warp * all);
}

/* All units of the block, by groups of UNITS a warp: `PRODUCT` for each group, then `CELL` for each of its (sequence, unit).
   Without `barrier` the grid has a block for each BATCH sequences, and this has all of their units. */
#define FOR_UNITS(UNITS, BATCH, PRODUCT, CELL)                                                                            \
    do {                                                                                                                  \
        const int wide = (int)blockDim.x / 32 / (int)s.splits * (UNITS), groups = CEIL_DIV((int)s.H, wide);               \
        const int apart = s.barrier ? groups : 1, all = CEIL_DIV((int)s.B, BATCH) * apart;                                \
        for (int mine = blockIdx.x; mine < all; mine += gridDim.x) {                                                      \
            const idx b0 = mine / apart * (BATCH);                                                                        \
            for (int group = mine % apart; group < groups; group += apart) {                                              \
                const idx unit0 = group * wide;                                                                           \
                PRODUCT(unit0, b0);                                                                                       \
                __syncthreads();                                                                                          \
                for (int place = threadIdx.x; place < wide * (BATCH); place += blockDim.x) {                              \
                    const idx unit = unit0 + place % wide, b = b0 + place / wide;                                         \
                    if (unit < s.H && b < s.B) CELL(place % wide, place / wide, unit, b);                                 \
                }                                                                                                         \
                __syncthreads();                                                                                          \
            }                                                                                                             \
        }                                                                                                                 \
    } while (0)

/* The sum of a gate of the block's unit, for its sequence: those of the warps that shared it, in order. */
template <int UNITS, int GATES, int BATCH>
static __device__ __forceinline__ REAL sum_of(const steps &s, const REAL *sums, int unit, int gate, int b) {
    sums += ((unit / UNITS * (int)s.splits * UNITS + unit % UNITS) * GATES + gate) * BATCH + b;
    REAL sum = sums[0];
    for (int split = 1; split < s.splits; split++) sum += sums[split * UNITS * GATES * BATCH];
    return sum;
}

/* The adjoint of the state after step i: from its output, from the step after it without a product, and by the product. */
static __device__ __forceinline__ REAL adjoint_of_state(const steps &s, idx i, idx b, idx unit, const REAL *dh,
                                                        const REAL *carried, REAL product) {
    REAL d = i < 0 ? (REAL)0 : dh[row_of(s, i, b) * s.H + unit];
    if (i + 1 < s.T) d += carried[b * s.H + unit];
    return i + 1 < s.T && alive(s, i + 1, b) ? d + product : d;
}

/* ---- the simple recurrent layer ---- */

static __device__ __forceinline__ REAL activated(REAL a, idx nonlinearity) {
    switch (nonlinearity) {
        case TANH: return tanh(a);
        case RELU: return larger(a, 0);
        case SIGMOID: return sigmoid_of(a);
        default: return a;
    }
}
static __device__ __forceinline__ REAL slope(REAL y, idx nonlinearity) {   /* by the value */
    switch (nonlinearity) {
        case TANH: return 1 - y * y;
        case RELU: return y > 0;
        case SIGMOID: return y * (1 - y);
        default: return 1;
    }
}

template <int BATCH>
static __device__ void rnn_steps(const steps &s, idx nonlinearity, const REAL *gx, const REAL *h0, const REAL *w, REAL *h) {
    __shared__ REAL sums[MOST_SUMS];
    for (idx i = 0; i < s.T; i++) {
        if (i) meet(s);
        const REAL *h_before = before(s, i, h0, h);
        auto multiplied = [&](idx unit0, idx b0) { multiply<4, 1, BATCH>(s, {w, 0, s.H, h_before, s.H, s.H}, unit0, b0, sums); };
        auto cell = [&](int mine, int row, idx unit, idx b) {
            const idx place = row_of(s, i, b) * s.H + unit;
            h[place] = alive(s, i, b) ? activated(gx[place] + sum_of<4, 1, BATCH>(s, sums, mine, 0, row), nonlinearity)
                                      : h_before[b * s.H + unit];
        };
        FOR_UNITS(4, BATCH, multiplied, cell);
    }
}

/* w is transposed. */
template <int BATCH>
static __device__ void rnn_steps_backward(const steps &s, idx nonlinearity, const REAL *dh, const REAL *h, const REAL *w, REAL *da,
                                          REAL *carried) {
    __shared__ REAL sums[MOST_SUMS];
    for (idx i = s.T - 1; i >= -1; i--) {
        if (i + 1 < s.T) meet(s);
        auto multiplied = [&](idx unit0, idx b0) {
            if (i + 1 < s.T) multiply<4, 1, BATCH>(s, {w, 0, s.H, da + row_of(s, i + 1, 0) * s.H, s.H, s.H}, unit0, b0, sums);
        };
        auto cell = [&](int mine, int row, idx unit, idx b) {
            const REAL d = adjoint_of_state(s, i, b, unit, dh, carried, sum_of<4, 1, BATCH>(s, sums, mine, 0, row));
            const bool working = i >= 0 && alive(s, i, b);
            carried[b * s.H + unit] = working ? (REAL)0 : d;
            if (i < 0) return;
            const idx place = row_of(s, i, b) * s.H + unit;
            da[place] = working ? d * slope(h[place], nonlinearity) : (REAL)0;
        };
        FOR_UNITS(4, BATCH, multiplied, cell);
    }
}

/* ---- LSTM: gates i, f, g, o. Peepholes: none, one weight per unit (3, H), or matrices (3, H, H) ---- */

enum { NONE, ONE_PER_UNIT, MATRICES };

static __device__ __forceinline__ REAL peep(idx peepholes, const REAL *peephole, idx gate, idx H, idx unit, REAL c) {
    return peepholes == ONE_PER_UNIT ? peephole[gate * H + unit] * c : (REAL)0;
}

template <int BATCH>
static __device__ void lstm_steps(const steps &s, idx output_activation, idx peepholes, const REAL *gx, const REAL *h0,
                                  const REAL *c0, const REAL *w, const REAL *peephole, REAL *h, REAL *c, REAL *gates) {
    __shared__ REAL sums[MOST_SUMS], of_cells[MOST_SUMS];
    const idx H = s.H;
    for (idx i = 0; i < s.T; i++) {
        if (i) meet(s);
        const REAL *h_before = before(s, i, h0, h), *c_before = before(s, i, c0, c);

        auto multiplied = [&](idx unit0, idx b0) {
            multiply<1, 4, BATCH>(s, {w, H * H, H, h_before, H, H}, unit0, b0, sums);
            if (peepholes == MATRICES)
                multiply<1, 2, BATCH>(s, {peephole, H * H, H, c_before, H, H}, unit0, b0, of_cells);
        };
        auto cell = [&](int mine, int row, idx unit, idx b) {
            const idx place = row_of(s, i, b) * H + unit, state = b * H + unit, gate = row_of(s, i, b) * 4 * H + unit;
            if (!alive(s, i, b)) {
                for (int g = 0; g < 4; g++) gates[gate + g * H] = 0;
                h[place] = h_before[state], c[place] = c_before[state];
                return;
            }
            REAL a[4];
            for (int g = 0; g < 4; g++) a[g] = gx[gate + g * H] + sum_of<1, 4, BATCH>(s, sums, mine, g, row);
            const REAL old = c_before[state];
            for (int g = 0; g < 2; g++)
                a[g] += peepholes == MATRICES ? sum_of<1, 2, BATCH>(s, of_cells, mine, g, row)
                                              : peep(peepholes, peephole, g, H, unit, old);
            const REAL in = sigmoid_of(a[0]), forget = sigmoid_of(a[1]), candidate = tanh(a[2]), now = forget * old + in * candidate;
            gates[gate] = in, gates[gate + H] = forget, gates[gate + 2 * H] = candidate, c[place] = now;
            if (peepholes == MATRICES) {
                gates[gate + 3 * H] = a[3];   /* the next phase goes on from here */
                return;
            }
            const REAL out = sigmoid_of(a[3] + peep(peepholes, peephole, 2, H, unit, now));
            gates[gate + 3 * H] = out, h[place] = out * activated(now, output_activation);
        };
        FOR_UNITS(1, BATCH, multiplied, cell);
        if (peepholes != MATRICES) continue;
        meet(s);

        auto seen = [&](idx unit0, idx b0) {
            multiply<4, 1, BATCH>(s, {peephole + 2 * H * H, 0, H, c + row_of(s, i, 0) * H, H, H}, unit0, b0, sums);
        };
        auto output = [&](int mine, int row, idx unit, idx b) {
            if (!alive(s, i, b)) return;
            REAL *o = gates + row_of(s, i, b) * 4 * H + 3 * H + unit;
            const idx place = row_of(s, i, b) * H + unit;
            *o = sigmoid_of(*o + sum_of<4, 1, BATCH>(s, sums, mine, 0, row)), h[place] = *o * activated(c[place], output_activation);
        };
        FOR_UNITS(4, BATCH, seen, output);
    }
}

/* w and the matrices of peephole are transposed: (H, 4H); (H, 2H) of i and f, then (H, H) of o. dc (B, H) is the adjoint of
   the last cell state and becomes that of c0. */
template <int BATCH>
static __device__ void lstm_steps_backward(const steps &s, idx output_activation, idx peepholes, const REAL *dh, const REAL *c,
                                           const REAL *gates, const REAL *c0, const REAL *w, const REAL *peephole, REAL *da,
                                           REAL *carried, REAL *dc) {
    __shared__ REAL sums[MOST_SUMS], of_cells[MOST_SUMS];
    const idx H = s.H;
    for (idx i = s.T - 1; i >= -1; i--) {
        if (i + 1 < s.T) meet(s);
        const REAL *c_before = i < 0 ? c0 : before(s, i, c0, c), *after = da + (i + 1 < s.T ? row_of(s, i + 1, 0) * 4 * H : 0);

        /* From dcell, the adjoint of the cell after step i, to all but the output gate's sums. */
        auto through_cell = [&](idx b, idx unit, REAL dcell) {
            const idx gate = row_of(s, i, b) * 4 * H + unit;
            const REAL in = gates[gate], forget = gates[gate + H], candidate = gates[gate + 2 * H];
            const REAL da_i = dcell * candidate * in * (1 - in);
            const REAL da_f = dcell * c_before[b * H + unit] * forget * (1 - forget);
            da[gate] = da_i, da[gate + H] = da_f, da[gate + 2 * H] = dcell * in * (1 - candidate * candidate);
            dc[b * H + unit] = dcell * forget + peep(peepholes, peephole, 0, H, unit, da_i) + peep(peepholes, peephole, 1, H, unit, da_f);
        };

        auto multiplied = [&](idx unit0, idx b0) {
            if (i + 1 == s.T) return;
            multiply<4, 1, BATCH>(s, {w, 0, 4 * H, after, 4 * H, 4 * H}, unit0, b0, sums);
            if (peepholes == MATRICES) multiply<4, 1, BATCH>(s, {peephole, 0, 2 * H, after, 4 * H, 2 * H}, unit0, b0, of_cells);
        };
        auto cell = [&](int mine, int row, idx unit, idx b) {
            const idx state = b * H + unit, place = (i < 0 ? 0 : row_of(s, i, b)) * H + unit, gate = 4 * place - 3 * unit;
            const REAL d = adjoint_of_state(s, i, b, unit, dh, carried, sum_of<4, 1, BATCH>(s, sums, mine, 0, row));
            REAL dcell = dc[state];
            if (peepholes == MATRICES && i + 1 < s.T && alive(s, i + 1, b)) dcell += sum_of<4, 1, BATCH>(s, of_cells, mine, 0, row);
            const bool working = i >= 0 && alive(s, i, b);
            carried[state] = working ? (REAL)0 : d;
            if (!working) {
                dc[state] = dcell;
                for (int g = 0; g < 4 && i >= 0; g++) da[gate + g * H] = 0;
                return;
            }
            const REAL squashed = activated(c[place], output_activation), out = gates[gate + 3 * H];
            const REAL da_o = d * squashed * out * (1 - out);
            da[gate + 3 * H] = da_o;
            dcell += d * out * slope(squashed, output_activation);
            if (peepholes == MATRICES) dc[state] = dcell;
            else through_cell(b, unit, dcell + peep(peepholes, peephole, 2, H, unit, da_o));
        };
        FOR_UNITS(4, BATCH, multiplied, cell);
        if (peepholes != MATRICES || i < 0) continue;
        meet(s);

        auto seen = [&](idx unit0, idx b0) {
            multiply<4, 1, BATCH>(s, {peephole + 2 * H * H, 0, H, da + row_of(s, i, 0) * 4 * H + 3 * H, 4 * H, H}, unit0, b0, sums);
        };
        auto rest = [&](int mine, int row, idx unit, idx b) {
            if (alive(s, i, b)) through_cell(b, unit, dc[b * H + unit] + sum_of<4, 1, BATCH>(s, sums, mine, 0, row));
        };
        FOR_UNITS(4, BATCH, seen, rest);
    }
}

/* ---- GRU: gates r, z, n, and q = W_hn h + b_hn, or r h with the reset gate before the product ---- */

template <int BATCH>
static __device__ void gru_steps(const steps &s, idx reset_after, const REAL *gx, const REAL *h0, const REAL *w, const REAL *bias,
                                 REAL *h, REAL *gates) {
    __shared__ REAL sums[MOST_SUMS];
    const idx H = s.H;
    for (idx i = 0; i < s.T; i++) {
        if (i) meet(s);
        const REAL *h_before = before(s, i, h0, h);
        auto bias_of = [&](idx gate, idx unit) { return bias ? bias[gate * H + unit] : (REAL)0; };
        auto finish = [&](idx b, idx unit, REAL z, REAL a) {
            const idx row = row_of(s, i, b);
            const REAL n = tanh(a);
            gates[row * 4 * H + 2 * H + unit] = n;
            h[row * H + unit] = z * h_before[b * H + unit] + (1 - z) * n;
        };
        auto cell = [&](REAL sum_r, REAL sum_z, REAL sum_n, idx unit, idx b) {
            const idx row = row_of(s, i, b), gate = row * 4 * H + unit;
            const REAL *x = gx + row * 3 * H + unit, old = h_before[b * H + unit];
            if (!alive(s, i, b)) {
                for (int g = 0; g < 4; g++) gates[gate + g * H] = 0;
                h[row * H + unit] = old;
                return;
            }
            const REAL r = sigmoid_of(x[0] + sum_r + bias_of(0, unit)), z = sigmoid_of(x[H] + sum_z + bias_of(1, unit));
            const REAL q = reset_after ? sum_n + bias_of(2, unit) : r * old;
            gates[gate] = r, gates[gate + H] = z, gates[gate + 3 * H] = q;
            if (reset_after) finish(b, unit, z, x[2 * H] + r * q);
        };

        auto all_gates = [&](idx unit0, idx b0) { multiply<1, 3, BATCH>(s, {w, H * H, H, h_before, H, H}, unit0, b0, sums); };
        auto all_cells = [&](int mine, int row, idx unit, idx b) {
            const REAL r = sum_of<1, 3, BATCH>(s, sums, mine, 0, row), z = sum_of<1, 3, BATCH>(s, sums, mine, 1, row);
            cell(r, z, sum_of<1, 3, BATCH>(s, sums, mine, 2, row), unit, b);
        };
        auto two_gates = [&](idx unit0, idx b0) { multiply<2, 2, BATCH>(s, {w, H * H, H, h_before, H, H}, unit0, b0, sums); };
        auto two_cells = [&](int mine, int row, idx unit, idx b) {
            cell(sum_of<2, 2, BATCH>(s, sums, mine, 0, row), sum_of<2, 2, BATCH>(s, sums, mine, 1, row), 0, unit, b);
        };
        if (reset_after) {
            FOR_UNITS(1, BATCH, all_gates, all_cells);
            continue;
        }
        FOR_UNITS(2, BATCH, two_gates, two_cells);
        meet(s);

        auto candidates = [&](idx unit0, idx b0) {
            multiply<4, 1, BATCH>(s, {w + 2 * H * H, 0, H, gates + row_of(s, i, 0) * 4 * H + 3 * H, 4 * H, H}, unit0, b0, sums);
        };
        auto candidate = [&](int mine, int row, idx unit, idx b) {
            const idx at = row_of(s, i, b);
            if (!alive(s, i, b)) return;
            const REAL a = gx[at * 3 * H + 2 * H + unit] + sum_of<4, 1, BATCH>(s, sums, mine, 0, row) + bias_of(2, unit);
            finish(b, unit, gates[at * 4 * H + H + unit], a);
        };
        FOR_UNITS(4, BATCH, candidates, candidate);
    }
}

/* w is transposed, (H, 3H). dg (T, B, 3H) are the adjoints of W_hr h, W_hz h and, reset after, W_hn h; else it is da. */
template <int BATCH>
static __device__ void gru_steps_backward(const steps &s, idx reset_after, const REAL *dh, const REAL *h, const REAL *gates,
                                          const REAL *h0, const REAL *w, REAL *da, REAL *dg, REAL *carried) {
    __shared__ REAL sums[MOST_SUMS];
    const idx H = s.H;
    for (idx i = s.T - 1; i >= -1; i--) {
        if (i + 1 < s.T) meet(s);
        const REAL *h_before = i < 0 ? h0 : before(s, i, h0, h), *after = dg + (i + 1 < s.T ? row_of(s, i + 1, 0) * 3 * H : 0);
        auto multiplied = [&](idx unit0, idx b0) {
            const idx K = reset_after ? 3 * H : 2 * H;
            if (i + 1 < s.T) multiply<4, 1, BATCH>(s, {w, 0, 3 * H, after, 3 * H, K}, unit0, b0, sums);
        };
        auto cell = [&](int mine, int row, idx unit, idx b) {
            const REAL d = adjoint_of_state(s, i, b, unit, dh, carried, sum_of<4, 1, BATCH>(s, sums, mine, 0, row));
            const bool working = i >= 0 && alive(s, i, b);
            REAL kept = d, da_r = 0, da_z = 0, da_n = 0, dq = 0;
            if (working) {
                const REAL *gate = gates + row_of(s, i, b) * 4 * H + unit, r = gate[0], z = gate[H], n = gate[2 * H];
                da_n = d * (1 - z) * (1 - n * n);
                da_z = d * (h_before[b * H + unit] - n) * z * (1 - z);
                dq = da_n * r, da_r = da_n * gate[3 * H] * r * (1 - r);
                kept = d * z;
            }
            carried[b * H + unit] = kept;
            if (i < 0) return;
            const idx place = row_of(s, i, b) * 3 * H + unit;
            da[place] = da_r, da[place + H] = da_z, da[place + 2 * H] = da_n;   /* reset before: da_r follows below */
            if (reset_after) dg[place] = da_r, dg[place + H] = da_z, dg[place + 2 * H] = dq;
        };
        FOR_UNITS(4, BATCH, multiplied, cell);
        if (reset_after || i < 0) continue;
        meet(s);

        auto resets = [&](idx unit0, idx b0) {
            multiply<4, 1, BATCH>(s, {w + 2 * H, 0, 3 * H, da + row_of(s, i, 0) * 3 * H + 2 * H, 3 * H, H}, unit0, b0, sums);
        };
        auto reset = [&](int mine, int row, idx unit, idx b) {
            if (!alive(s, i, b)) return;
            const REAL r = gates[row_of(s, i, b) * 4 * H + unit], dq = sum_of<4, 1, BATCH>(s, sums, mine, 0, row);
            da[row_of(s, i, b) * 3 * H + unit] = dq * h_before[b * H + unit] * r * (1 - r);
            carried[b * H + unit] += dq * r;
        };
        FOR_UNITS(4, BATCH, resets, reset);
    }
}

/* ---- the kernels: of BATCH sequences a block; BOUNDS = (most threads of a block, blocks at a time) ---- */

/* Only what no block writes is __restrict__: the compiler may read that by another way, on which others' writes are not seen. */

#define KERNELS(BATCH, BOUNDS)                                                                                                  \
    extern "C" __global__ void __launch_bounds__ BOUNDS                                                                          \
    rnn_##BATCH(STEPS_PARAMETERS, idx nonlinearity, const REAL *gx, const REAL *h0, const REAL *__restrict__ w, REAL *h) {       \
        rnn_steps<BATCH>(STEPS, nonlinearity, gx, h0, w, h);                                                                    \
    }                                                                                                                           \
    extern "C" __global__ void __launch_bounds__ BOUNDS                                                                          \
    rnn_backward_##BATCH(STEPS_PARAMETERS, idx nonlinearity, const REAL *dh, const REAL *h, const REAL *__restrict__ w,          \
                         REAL *da, REAL *carried) {                                                                             \
        rnn_steps_backward<BATCH>(STEPS, nonlinearity, dh, h, w, da, carried);                                                  \
    }                                                                                                                           \
    extern "C" __global__ void __launch_bounds__ BOUNDS                                                                          \
    lstm_##BATCH(STEPS_PARAMETERS, idx output_activation, idx peepholes, const REAL *gx, const REAL *h0, const REAL *c0,         \
                 const REAL *__restrict__ w, const REAL *__restrict__ peephole, REAL *h, REAL *c, REAL *gates) {                \
        lstm_steps<BATCH>(STEPS, output_activation, peepholes, gx, h0, c0, w, peephole, h, c, gates);                           \
    }                                                                                                                           \
    extern "C" __global__ void __launch_bounds__ BOUNDS                                                                          \
    lstm_backward_##BATCH(STEPS_PARAMETERS, idx output_activation, idx peepholes, const REAL *dh, const REAL *c,                 \
                          const REAL *gates, const REAL *c0, const REAL *__restrict__ w, const REAL *__restrict__ peephole,     \
                          REAL *da, REAL *carried, REAL *dc) {                                                                  \
        lstm_steps_backward<BATCH>(STEPS, output_activation, peepholes, dh, c, gates, c0, w, peephole, da, carried, dc);        \
    }                                                                                                                           \
    extern "C" __global__ void __launch_bounds__ BOUNDS                                                                          \
    gru_##BATCH(STEPS_PARAMETERS, idx reset_after, const REAL *gx, const REAL *h0, const REAL *__restrict__ w,                   \
                const REAL *__restrict__ bias, REAL *h, REAL *gates) {                                                          \
        gru_steps<BATCH>(STEPS, reset_after, gx, h0, w, bias, h, gates);                                                        \
    }                                                                                                                           \
    extern "C" __global__ void __launch_bounds__ BOUNDS                                                                          \
    gru_backward_##BATCH(STEPS_PARAMETERS, idx reset_after, const REAL *dh, const REAL *h, const REAL *gates, const REAL *h0,    \
                         const REAL *__restrict__ w, REAL *da, REAL *dg, REAL *carried) {                                       \
        gru_steps_backward<BATCH>(STEPS, reset_after, dh, h, gates, h0, w, da, dg, carried);                                    \
    }
KERNELS(1, (512, 1))
KERNELS(4, (512, 1))
KERNELS(16, (256, 1 + REAL_IS_FLOAT))
