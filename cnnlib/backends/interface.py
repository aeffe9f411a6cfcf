"""The kernel contract: every kernel that a backend provides, on one page.

A kernel is a plain function on arrays (NumPy or CuPy). It never sees a Tensor, never writes to an argument (the
optimiser updates at the end are the one exception, and say so) and returns freshly allocated arrays.

- ``float`` arrays are float32 or float64, one dtype per call; outputs have the dtype of the inputs.
- Arrays arrive C-contiguous, aligned and in native byte order, possibly read-only. Images are N C H W. The compiled kernels
  refuse what they would misread: other layouts, other types, two float dtypes in one call.
- Values and shapes arrive validated: kernels check none of them. Shapes are checked once, in ``cnnlib/ops/``.
- NaN and infinity propagate, and may reach an output whose sum holds 0 · NaN, such as padding under a NaN weight.
- Results are bitwise equal from run to run, for any number of threads and any floating-point state of the caller (rounding
  mode, flushing of denormals), which is as before after the call.

Names: `X_forward`, then `X_backward` (or one per adjoint); `X_step` for optimisers.

The functions below have no body: they give the signature and meaning. ``cnnlib/ops/`` holds the textbook version of
each, which is the reference backend; a test compares the signatures of all backends with this page.

Notation: ``pads = (top, bottom, left, right)``; pairs are ``(height, width)``;
``OH = (H + top + bottom - DH * (KH - 1) - 1) // SH + 1``, OW likewise; "rows" (R, D) means all leading axes flattened.
"""
# ruff: noqa: E704  (one line per kernel keeps the contract on one page)
# mypy: disable-error-code="empty-body"


# ---- linear -----------------------------------------------------------------------------------------------------------
def gemm(a, b, transpose_a=False, transpose_b=False):
    """(M, K) @ (K, N) -> (M, N), or batched (B, M, K) @ (B, K, N); a flag means that operand is stored transposed."""
def linear_forward(x, w, b):
    """y = x w^T + b: x (R, I), w (O, I), b (O,) or None -> y (R, O)."""
def linear_backward_input(dy, w):
    """dx = dy w: dy (R, O), w (O, I) -> dx (R, I)."""
def linear_backward_weight(dy, x):
    """dw = dy^T x: dy (R, O), x (R, I) -> dw (O, I)."""
def linear_backward_bias(dy):
    """db = sum over rows of dy: (R, O) -> (O,)."""


# ---- conv -------------------------------------------------------------------------------------------------------------
def conv2d_forward(x, w, b, stride, pads, dilation, groups):
    """Cross-correlation: x (N, C, H, W), w (F, C/groups, KH, KW), b (F,) or None -> y (N, F, OH, OW)."""
def conv2d_backward_input(dy, w, x_shape, stride, pads, dilation, groups):
    """dy (N, F, OH, OW), w (F, C/groups, KH, KW) -> dx of x_shape (N, C, H, W). Also the transposed convolution."""
def conv2d_backward_weight(dy, x, w_shape, stride, pads, dilation, groups):
    """dy (N, F, OH, OW), x (N, C, H, W) -> dw of w_shape (F, C/groups, KH, KW)."""
def conv2d_backward_bias(dy):
    """db = sum of dy over N, OH, OW: (N, F, OH, OW) -> (F,)."""


# ---- pool -------------------------------------------------------------------------------------------------------------
def max_pool2d_forward(x, kernel_size, stride, pads):
    """-> y (N, C, OH, OW), argmax of the same shape: offset kh * KW + kw of the first maximum inside its window,
    uint8 when KH * KW <= 256, else int32. Padding never wins; NaN does."""
def max_pool2d_backward(dy, argmax, x_shape, kernel_size, stride, pads):
    """-> dx of x_shape: each dy goes to the element that won; overlapping windows add up."""
def avg_pool2d_forward(x, kernel_size, stride, pads, count_include_pad):
    """-> y: mean of each window, over KH * KW or, without count_include_pad, over its elements inside the image."""
def avg_pool2d_backward(dy, x_shape, kernel_size, stride, pads, count_include_pad):
    """-> dx of x_shape."""
def lp_pool2d_forward(x, p, kernel_size, stride, pads):
    """-> y = (sum over the window of |x|^p)^(1/p), p >= 1 a float."""
def lp_pool2d_backward(dy, x, y, p, kernel_size, stride, pads):
    """-> dx = sum over windows of dy sign(x) (|x| / y)^(p-1); 0 where y = 0."""


# ---- norm -------------------------------------------------------------------------------------------------------------
def batch_norm_forward(x, gamma, beta, eps):
    """x (N, C, S); gamma, beta (C,) or None -> y, mean (C,), var (C,) with 1/m, eps inside the root."""
def batch_norm_backward(dy, x, gamma, mean, var, eps):
    """-> dx, dgamma (C,), dbeta (C,), the statistics being functions of x."""
def batch_norm_inference_forward(x, gamma, beta, mean, var, eps):
    """x (N, C, S) -> y with given statistics."""
def batch_norm_inference_backward(dy, x, gamma, mean, var, eps):
    """-> dx, dgamma, dbeta, the statistics being constants."""
def layer_norm_forward(x, gamma, beta, eps):
    """x (R, D); gamma, beta (D,) or None -> y, mean (R,), rstd (R,)."""
def layer_norm_backward(dy, x, gamma, mean, rstd):
    """-> dx, dgamma (D,), dbeta (D,)."""
def local_response_norm_forward(x, size, alpha, beta, k):
    """x (N, C, S) -> y = x / s^beta, s (N, C, S) = k + alpha / size * sum of x^2
    over channels c - size//2 ... c + (size-1)//2."""
def local_response_norm_backward(dy, x, s, size, alpha, beta):
    """-> dx."""
def local_contrast_norm_forward(x, size, sigma, eps):
    """x (N, C, H, W) -> y, v (N, C, H, W), deviation (N, H, W): v = x - m, m the Gaussian-weighted mean over
    all channels and the size x size neighbourhood (weights renormalised at the border); deviation^2 the same mean of v^2;
    y = v / max(mean of deviation over the image, deviation, eps)."""
def local_contrast_norm_backward(dy, v, deviation, size, sigma, eps):
    """-> dx."""


# ---- activation -------------------------------------------------------------------------------------------------------
def relu_forward(x):
    """max(x, 0), any shape; NaN stays NaN."""
def relu_backward(dy, y):
    """dy where y > 0, else 0."""
def leaky_relu_forward(x, slope):
    """x where x > 0, else slope * x."""
def leaky_relu_backward(dy, x, slope):
    """dy where x > 0, else slope * dy."""
def elu_forward(x, alpha):
    """x where x > 0, else alpha (e^x - 1)."""
def elu_backward(dy, x, alpha):
    """dy where x > 0, else dy alpha e^x."""
def softplus_forward(x):
    """log(1 + e^x), without overflow."""
def softplus_backward(dy, x):
    """dy sigmoid(x)."""
def sigmoid_forward(x):
    """1 / (1 + e^-x), without overflow."""
def sigmoid_backward(dy, y):
    """dy y (1 - y)."""
def tanh_forward(x):
    """tanh(x)."""
def tanh_backward(dy, y):
    """dy (1 - y^2)."""
def softmax_forward(x):
    """rows (R, C) -> e^(x - max) / sum."""
def softmax_backward(dy, y):
    """y (dy - sum(dy y))."""
def log_softmax_forward(x):
    """rows (R, C) -> x - max - log sum e^(x - max)."""
def log_softmax_backward(dy, y):
    """dy - e^y sum(dy)."""
def maxout_forward(x):
    """(R, P, S) -> y (R, S) = max over the P pieces, argmax (R, S) uint8: the first that wins."""
def maxout_backward(dy, argmax, pieces):
    """(R, S) -> dx (R, P, S)."""


# ---- dropout ----------------------------------------------------------------------------------------------------------
def random_bits(key, n):
    """n uint32 from Philox4x32-10; key = (seed, stream, call), see cnnlib/random.py. Equal in every backend, bit for bit."""
def dropout_forward(x, p, key):
    """-> y = x * (1 / (1 - p)) where random_bits(key, x.size)[i] >= p * 2^32, else 0; keep (ceil(x.size / 8),) uint8: those
    comparisons, eight in a byte, the first one lowest; equal in every backend, bit for bit."""
def dropout_backward(dy, keep, p):
    """-> dx = dy * (1 / (1 - p)) where keep has a one, else 0."""


# ---- loss -------------------------------------------------------------------------------------------------------------
def cross_entropy_forward(x, labels, weight, label_smoothing, ignore_index):
    """x (R, C) logits, labels (R,) int64, weight (C,) or None -> loss (R,), lse (R,) = log sum e^x.
    loss = (1 - e) w[t] (lse - x[t]) + e / C sum_c w[c] (lse - x[c]), e the label smoothing; 0 where t == ignore_index."""
def cross_entropy_backward(dloss, x, labels, lse, weight, label_smoothing, ignore_index):
    """dloss (R,) -> dx (R, C)."""


# ---- recurrent: one layer in one direction over all steps. x (T, B, D), w_ih (G H, D), b (G H,) or None, gx = x w_ih^T + b;
# lengths (B,) int64 or None: from step lengths[b] on, sequence b keeps its state, its gates and adjoints there are 0;
# reverse: steps T - 1 ... 0. "Before" and "last" are meant in the order of the steps' work. Formulas: cnnlib/ops/recurrent.py.
def rnn_forward(x, h0, w_ih, w_hh, b, nonlinearity, lengths, reverse):
    """h = g(gx + h_before w_hh^T): h0 (B, H), w_hh (H, H) -> h (T, B, H). nonlinearity: tanh, relu, sigmoid, identity."""
def rnn_backward(dh, h, h0, w_hh, nonlinearity, lengths, reverse):
    """dh (T, B, H) -> da (T, B, H) = adjoint of gx, dh0 (B, H), dw_hh (H, H)."""
def lstm_forward(x, h0, c0, w_ih, w_hh, b, peephole, output_activation, lengths, reverse):
    """G = 4: i, f, g, o; w_hh (4H, H), peephole (3, H), (3, H, H) or None, output_activation: tanh, identity
    -> h, c (T, B, H), gates (T, B, 4H) after their non-linearities."""
def lstm_backward(dh, dc, h, c, gates, h0, c0, w_hh, peephole, output_activation, lengths, reverse):
    """dc (B, H): adjoint of the last c -> da (T, B, 4H), dh0, dc0 (B, H), dw_hh (4H, H), dpeephole as peephole."""
def gru_forward(x, h0, w_ih, w_hh, b_ih, b_hh, reset_after, lengths, reverse):
    """G = 3: r, z, n; w_hh (3H, H), b_hh (3H,) or None -> h (T, B, H), gates (T, B, 4H): r, z, n and q = h_before w_n^T + b_n
    if reset_after, else r h_before."""
def gru_backward(dh, h, gates, h0, w_hh, reset_after, lengths, reverse):
    """-> da (T, B, 3H), dh0 (B, H), dw_hh (3H, H), db_hh (3H,)."""


# ---- embedding --------------------------------------------------------------------------------------------------------
def embedding_forward(indices, w):
    """indices (R,) int64, w (V, D) -> (R, D)."""
def embedding_backward(dy, indices, num_embeddings):
    """dy (R, D) -> dw (V, D): rows of equal index add up, in the order of the indices."""


# ---- optim: these write to the parameter w and to their state, in place ------------------------------------------------
def sgd_step(w, dw, velocity, lr, momentum, dampening, weight_decay, nesterov):
    """g = dw + weight_decay w; v = momentum v + (1 - dampening) g; w -= lr (g + momentum v if nesterov else v).
    velocity None: w -= lr g."""
def adagrad_step(w, dw, square_sum, lr, eps, weight_decay):
    """G += g^2; w -= lr g / (sqrt(G) + eps)."""
def rmsprop_step(w, dw, square_avg, grad_avg, velocity, lr, alpha, eps, weight_decay, momentum):
    """G = alpha G + (1 - alpha) g^2; d = sqrt(G - (mean of g)^2 if grad_avg else G) + eps; w -= lr g / d,
    or through a velocity."""
def adam_step(w, dw, m, v, step, lr, beta1, beta2, eps, weight_decay, decoupled):
    """m = b1 m + (1-b1) g; v = b2 v + (1-b2) g^2; w -= lr m / (1-b1^t) / (sqrt(v / (1-b2^t)) + eps).
    decoupled: AdamW, w *= 1 - lr weight_decay first."""
