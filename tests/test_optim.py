"""Optimisers against slow formulas of one number at a time; resume; errors; clipping; schedules."""

import math
import warnings

import numpy as np
import pytest

import cnnlib as cl
from cnnlib import Parameter, Tensor, nn, ops, optim
from cnnlib.backends import available
from cnnlib.errors import CheckpointError, CnnlibError, DtypeError, NonFiniteError, ShapeError, ValueRangeError
from tests.cases import ErrorCase

BACKENDS = [name for name in ("reference", "cpu") if available()[name] is None]
each_backend = pytest.mark.parametrize("backend", BACKENDS)
each_dtype = pytest.mark.parametrize("dtype", ["float32", "float64"])


def parameter(value=(1.0, -2.0, 3.0), dtype="float64", name="w"):
    p = Parameter(np.array(value, dtype))
    p.name = name
    return p


# ---- slow formulas: generators that get gradients of one number and give its new values


def slow_sgd(w, lr=1e-3, momentum=0.0, dampening=0.0, weight_decay=0.0, nesterov=False):
    v = None
    while True:
        g = (yield w) + weight_decay * w
        if momentum:
            v = g if v is None else momentum * v + (1 - dampening) * g
            g = g + momentum * v if nesterov else v
        w -= lr * g


def slow_adagrad(w, lr=1e-2, lr_decay=0.0, weight_decay=0.0, initial_accumulator_value=0.0, eps=1e-10):
    G, t = initial_accumulator_value, 0
    while True:
        g = (yield w) + weight_decay * w
        t += 1
        G += g * g
        w -= lr / (1 + (t - 1) * lr_decay) * g / (math.sqrt(G) + eps)


def slow_rmsprop(w, lr=1e-2, alpha=0.99, eps=1e-8, weight_decay=0.0, momentum=0.0, centered=False):
    G = mean = v = 0.0
    while True:
        g = (yield w) + weight_decay * w
        G = alpha * G + (1 - alpha) * g * g
        mean = alpha * mean + (1 - alpha) * g
        d = math.sqrt(G - mean * mean if centered else G) + eps
        v = momentum * v + g / d
        w -= lr * v


def slow_adam(w, lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0, decoupled=False):
    m = v = 0.0
    t = 0
    while True:
        g = yield w
        t += 1
        if decoupled:
            w -= lr * weight_decay * w
        else:
            g += weight_decay * w
        m = betas[0] * m + (1 - betas[0]) * g
        v = betas[1] * v + (1 - betas[1]) * g * g
        w -= lr * (m / (1 - betas[0] ** t)) / (math.sqrt(v / (1 - betas[1] ** t)) + eps)


def slow_adamw(w, weight_decay=1e-2, **settings):
    return slow_adam(w, weight_decay=weight_decay, decoupled=True, **settings)


SETTINGS = [
    (optim.SGD, slow_sgd, {}),
    (optim.SGD, slow_sgd, {"lr": 0.1, "weight_decay": 0.2}),
    (optim.SGD, slow_sgd, {"lr": 0.1, "momentum": 0.9}),
    (optim.SGD, slow_sgd, {"lr": 0.1, "momentum": 0.9, "dampening": 0.3, "weight_decay": 0.1}),
    (optim.SGD, slow_sgd, {"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 0.1}),
    (optim.Adagrad, slow_adagrad, {}),
    (optim.Adagrad, slow_adagrad, {"lr": 0.1, "lr_decay": 0.1, "weight_decay": 0.1, "initial_accumulator_value": 0.2}),
    (optim.RMSprop, slow_rmsprop, {}),
    (optim.RMSprop, slow_rmsprop, {"alpha": 0.9, "momentum": 0.8, "weight_decay": 0.1, "eps": 1e-3}),
    (optim.RMSprop, slow_rmsprop, {"centered": True}),
    (optim.RMSprop, slow_rmsprop, {"centered": True, "momentum": 0.9, "weight_decay": 0.1}),
    (optim.Adam, slow_adam, {}),
    (optim.Adam, slow_adam, {"lr": 0.1, "betas": (0.8, 0.95), "eps": 1e-3, "weight_decay": 0.1}),
    (optim.AdamW, slow_adamw, {}),
    (optim.AdamW, slow_adamw, {"lr": 0.1, "betas": (0.8, 0.95), "weight_decay": 0.3}),
]
each_setting = pytest.mark.parametrize(
    ("optimizer", "slow", "settings"), SETTINGS, ids=[f"{o.__name__} {', '.join(map(str, s))}" for o, _, s in SETTINGS]
)


@each_backend
@each_dtype
@each_setting
def test_steps_equal_the_slow_formula(optimizer, slow, settings, dtype, backend):
    rng = np.random.default_rng(0)
    start = rng.standard_normal(37)
    p = parameter(start, dtype)
    one_by_one = [slow(float(w), **settings) for w in start]
    for each in one_by_one:
        next(each)
    opt = optimizer([p], **settings)
    with cl.use(backend):
        for step in range(1, 11):
            g = rng.standard_normal(37).astype(dtype)
            g.flags.writeable = False
            p.grad = g
            opt.step()
            expected = [each.send(float(v)) for each, v in zip(one_by_one, g, strict=True)]
            tolerance = 1e-12 if dtype == "float64" else 1e-5
            np.testing.assert_allclose(p.data, expected, rtol=tolerance, atol=tolerance, err_msg=f"step {step}")
            assert p.version == step and p.data.dtype == dtype


# ---- closed forms


def test_gradient_descent_on_a_parabola_shrinks_geometrically():
    """J = w²/2: w ← (1 − η) w."""
    p = parameter([1.0])
    opt = optim.SGD([p], lr=0.1)
    for _ in range(20):
        p.grad = p.data.copy()
        opt.step()
    assert p.data[0] == pytest.approx(0.9**20, rel=1e-12)


def test_momentum_under_a_constant_gradient_reaches_its_final_speed():
    """v → g / (1 − μ)."""
    p = parameter([0.0])
    opt = optim.SGD([p], lr=1.0, momentum=0.5)
    for _ in range(60):
        before = p.data[0]
        p.grad = np.array([1.0])
        opt.step()
    assert before - p.data[0] == pytest.approx(2.0, rel=1e-12)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_the_first_step_of_adam_has_length_lr_whatever_the_gradient(scale):
    p = parameter([0.0, 0.0])
    p.grad = np.array([scale, -scale])
    optim.Adam([p], lr=0.1).step()
    np.testing.assert_allclose(p.data, [-0.1, 0.1], rtol=1e-4)


def test_adagrad_under_a_constant_gradient_steps_like_one_over_root_t():
    p = parameter([0.0])
    opt = optim.Adagrad([p], lr=1.0)
    for _ in range(50):
        p.grad = np.array([3.0])
        opt.step()
    assert -p.data[0] == pytest.approx(sum(1 / math.sqrt(t) for t in range(1, 51)), rel=1e-9)


def test_adamw_without_gradient_only_decays():
    p = parameter([2.0])
    opt = optim.AdamW([p], lr=0.1, weight_decay=0.5)
    for _ in range(3):
        p.grad = np.array([0.0])
        opt.step()
    assert p.data[0] == pytest.approx(2.0 * 0.95**3)


@each_backend
@pytest.mark.parametrize(
    "make",
    [
        lambda p: optim.SGD(p, lr=0.02, momentum=0.9),
        lambda p: optim.Adagrad(p, lr=0.5),
        lambda p: optim.RMSprop(p, lr=0.02),
        lambda p: optim.Adam(p, lr=0.1),
        lambda p: optim.AdamW(p, lr=0.1, weight_decay=1e-4),
    ],
)
def test_every_optimiser_goes_down_a_long_valley(make, backend):
    p = parameter([2.0, 2.0])
    opt, curvature = make([p]), np.array([1.0, 20.0])
    with cl.use(backend):
        for _ in range(300):
            opt.zero_grad()
            (ops.sum(p * p * curvature) * 0.5).backward()
            opt.step()
    assert 0.5 * (curvature * p.data**2).sum() < 1e-2


# ---- what a step touches


def test_a_parameter_without_gradient_is_left_alone():
    a, b = parameter(), parameter()
    opt = optim.Adam([a, b])
    a.grad = np.ones(3)
    opt.step()
    assert (a.version, b.version) == (1, 0)
    np.testing.assert_array_equal(b.data, [1, -2, 3])
    assert opt.state[1] == {}
    b.grad = np.ones(3)  # its first step counts as its first
    before = b.data.copy()
    opt.step()
    np.testing.assert_allclose(before - b.data, 1e-3, rtol=1e-6)


def test_a_step_writes_in_place_and_not_to_the_gradient():
    p = parameter()
    array, g = p.data, np.ones(3)
    p.grad = g
    optim.RMSprop([p]).step()
    assert p.data is array and p.grad is g
    np.testing.assert_array_equal(g, np.ones(3))


def test_a_duplicate_counts_once_and_an_iterator_will_do():
    p, q = parameter([1.0]), parameter([1.0])
    opt = optim.SGD(iter([p, q, p]), lr=1.0)
    assert len(opt.params) == 2
    p.grad = np.array([1.0])
    opt.step()
    assert p.data[0] == 0.0


@each_backend
def test_a_gradient_that_is_not_contiguous(backend):
    p = parameter(np.zeros((3, 4)))
    p.grad = np.arange(12.0).reshape(4, 3).T
    with cl.use(backend):
        optim.SGD([p], lr=1.0).step()
    np.testing.assert_array_equal(p.data, -p.grad)


def test_backward_through_a_stale_parameter_is_refused():
    p = parameter()
    y = (p * p).sum()
    p.grad = np.ones(3)
    optim.SGD([p]).step()
    with pytest.raises(CnnlibError, match="was changed"):
        y.backward()


def test_zero_grad():
    p = parameter()
    p.grad = np.ones(3)
    optim.SGD([p]).zero_grad()
    assert p.grad is None


@pytest.mark.skipif("cpu" not in BACKENDS, reason="the compiled kernels were not built")
@each_setting
def test_one_thread_and_several_give_equal_bits(optimizer, slow, settings):
    rng = np.random.default_rng(0)
    start, gradients = rng.standard_normal(50_001).astype("float32"), rng.standard_normal((3, 50_001)).astype("float32")
    before, results = cl.get_num_threads(), []
    try:
        for threads in (1, 2, 5):
            cl.set_num_threads(threads)
            p = parameter(start, "float32")
            opt = optimizer([p], **settings)
            with cl.use("cpu"):
                for g in gradients:
                    p.grad = g
                    opt.step()
            results.append(p.data.tobytes())
    finally:
        cl.set_num_threads(before)
    assert results[0] == results[1] == results[2]


@pytest.mark.skipif("cpu" not in BACKENDS, reason="the compiled kernels were not built")
@each_setting
def test_shadow_agrees(optimizer, slow, settings):
    p = parameter(np.random.default_rng(0).standard_normal(100), "float32")
    opt = optimizer([p], **settings)
    with cl.use("cpu"), cl.shadow("reference"):
        for k in range(3):
            p.grad = np.random.default_rng(k).standard_normal(100).astype("float32")
            opt.step()


@pytest.mark.skipif("cpu" not in BACKENDS, reason="the compiled kernels were not built")
def test_a_read_only_parameter_is_not_written():
    p = parameter([1.0])
    p.data.flags.writeable = False
    p.grad = np.ones(1)
    for backend in BACKENDS:
        with cl.use(backend), pytest.raises(ValueError, match="read-only"):
            optim.SGD([p]).step()
    assert p.data[0] == 1.0


# ---- resume


def train(p, opt, steps, seed):
    rng = np.random.default_rng(seed)
    for _ in range(steps):
        p.grad = rng.standard_normal(p.shape).astype(p.dtype)
        opt.step()


@each_backend
@each_setting
def test_a_resumed_run_goes_on_bit_for_bit(optimizer, slow, settings, backend):
    with cl.use(backend):
        p = parameter(np.linspace(-1, 1, 19), "float32")
        opt = optimizer([p], **settings)
        train(p, opt, 4, seed=1)
        saved, weights = opt.state_dict(), p.data.copy()
        opt.lr = 123.0  # the copy must not change with the optimiser
        train(p, opt, 1, seed=2)

        again = []
        for numbers_as_arrays in (False, True):
            q = Parameter(weights)
            other = optimizer([q], lr=9.9)
            state = {k: np.asarray(v) for k, v in saved.items()} if numbers_as_arrays else saved
            other.load_state_dict(state)
            train(q, other, 3, seed=3)
            again.append(q.data.tobytes())

        r = parameter(np.linspace(-1, 1, 19), "float32")
        straight = optimizer([r], **settings)
        train(r, straight, 4, seed=1)
        train(r, straight, 3, seed=3)
    assert again == [r.data.tobytes()] * 2


@each_setting
def test_the_state_is_flat_arrays_and_numbers(optimizer, slow, settings):
    p = parameter(dtype="float32")
    opt = optimizer([p], **settings)
    train(p, opt, 1, seed=0)
    state = opt.state_dict()
    assert state["lr"] == opt.lr and state["0.step"] == 1
    for value in state.values():
        assert isinstance(value, (bool, int, float)) or (value.dtype == np.float32 and value.shape == (3,))


def test_the_loaded_state_is_a_copy():
    p = parameter()
    opt = optim.SGD([p], momentum=0.9)
    train(p, opt, 1, seed=0)
    state = opt.state_dict()
    before = state["0.velocity"].copy()
    opt.load_state_dict(state)
    train(p, opt, 2, seed=1)
    np.testing.assert_array_equal(state["0.velocity"], before)


def broken_state(**changes):
    p = parameter()
    opt = optim.Adam([p])
    train(p, opt, 1, seed=0)
    state = {**opt.state_dict(), **changes}
    return opt, {k: v for k, v in state.items() if v is not None}


def load_broken(**changes):
    opt, state = broken_state(**changes)
    opt.load_state_dict(state)


def test_a_state_that_does_not_fit_changes_nothing():
    opt, state = broken_state(lr=5.0, **{"0.m": np.zeros(4)})
    with pytest.raises(CheckpointError):
        opt.load_state_dict(state)
    assert opt.lr == 1e-3 and opt.state[0]["step"] == 1


# ---- errors


def step_with(grad):
    p = parameter()
    p.grad = grad
    optim.SGD([p]).step()


def norm_of_nan():
    p = parameter(name="conv.weight")
    p.grad = np.array([1.0, np.nan, 2.0])
    optim.clip_grad_norm_([p], 1.0, error_if_nonfinite=True)


def sgd(**settings):
    return optim.SGD([parameter()], **settings)


ERRORS = [
    ErrorCase("empty", lambda: optim.SGD([]), ValueRangeError, "SGD: params is empty: nothing to optimise"),
    ErrorCase("used up", lambda: optim.Adam(iter(())), ValueRangeError, "Adam: params is empty"),
    ErrorCase(
        "a tensor",
        lambda: optim.SGD([parameter(), Tensor([1.0])]),
        DtypeError,
        "SGD: params[1] must be a Parameter, got Tensor. Use model.parameters().",
    ),
    ErrorCase(
        "one parameter",
        lambda: optim.SGD(parameter()),
        DtypeError,
        "SGD: params must be an iterable of Parameters, got Parameter. Use model.parameters().",
    ),
    ErrorCase("a model", lambda: optim.SGD(nn.ReLU()), DtypeError, "got ReLU. Use model.parameters()."),
    ErrorCase("lr", lambda: sgd(lr=-1.0), ValueRangeError, "SGD: lr must be >= 0 and finite, got -1.0."),
    ErrorCase("lr NaN", lambda: sgd(lr=math.nan), ValueRangeError, "SGD: lr must be >= 0 and finite, got nan."),
    ErrorCase("momentum", lambda: sgd(momentum=-0.5), ValueRangeError, "SGD: momentum must be >= 0 and finite, got -0.5."),
    ErrorCase("dampening", lambda: sgd(dampening=2), ValueRangeError, "SGD: dampening must be in 0 … 1 and finite, got 2.0."),
    ErrorCase("weight decay", lambda: sgd(weight_decay=-1), ValueRangeError, "SGD: weight_decay must be >= 0"),
    ErrorCase(
        "nesterov",
        lambda: sgd(nesterov=True),
        ValueRangeError,
        "SGD: nesterov needs momentum > 0 and dampening 0, got momentum 0.0, dampening 0.0.",
    ),
    ErrorCase(
        "beta",
        lambda: optim.Adam([parameter()], betas=(0.9, 1.0)),
        ValueRangeError,
        "Adam: beta2 must be in 0 <= beta < 1 and finite, got 1.0.",
    ),
    ErrorCase(
        "alpha", lambda: optim.RMSprop([parameter()], alpha=1), ValueRangeError, "RMSprop: alpha must be in 0 <= alpha < 1"
    ),
    ErrorCase("eps", lambda: optim.Adagrad([parameter()], eps=-1), ValueRangeError, "Adagrad: eps must be >= 0"),
    ErrorCase(
        "gradient's shape",
        lambda: step_with(np.ones(4)),
        ShapeError,
        "SGD.step: the gradient of parameter 'w' must have its shape (3,) and dtype float64, got (4,) float64.",
    ),
    ErrorCase("gradient's dtype", lambda: step_with(np.ones(3, "float32")), ShapeError, "got (3,) float32."),
    ErrorCase(
        "state of another shape",
        lambda: load_broken(**{"0.m": np.zeros(4)}),
        CheckpointError,
        "Adam.load_state_dict: the state does not fit.\n  0.m has shape (4,), parameter 'w' has (3,)",
    ),
    ErrorCase("state without lr", lambda: load_broken(lr=None), CheckpointError, "lr is missing"),
    ErrorCase(
        "state without an array",
        lambda: load_broken(**{"0.v": None}),
        CheckpointError,
        "parameter 0 has m, step, expected m, step, v",
    ),
    ErrorCase(
        "state of more parameters",
        lambda: load_broken(**{"1.m": np.zeros(3)}),
        CheckpointError,
        "1.m belongs to no parameter: there are 1",
    ),
    ErrorCase("max_norm", lambda: optim.clip_grad_norm_([], 0.0), ValueRangeError, "max_norm must be > 0, got 0.0"),
    ErrorCase(
        "clipping a model",
        lambda: optim.clip_grad_norm_(nn.Linear(2, 2), 1.0),
        DtypeError,
        "clip_grad_norm_: params must be Parameters, got Linear. Use model.parameters().",
    ),
    ErrorCase(
        "clipping a container",
        lambda: optim.clip_grad_value_(nn.Sequential(nn.ReLU()), 1.0),
        DtypeError,
        "clip_grad_value_: params must be Parameters, got ReLU. Use model.parameters().",
    ),
    ErrorCase("clip_value", lambda: optim.clip_grad_value_([], -1.0), ValueRangeError, "clip_value must be > 0, got -1.0"),
    ErrorCase("norm of NaN", norm_of_nan, NonFiniteError, "is nan, the first such is parameter 'conv.weight'"),
    ErrorCase(
        "StepLR", lambda: optim.StepLR(sgd(), 0), ValueRangeError, "StepLR: step_size must be a whole number >= 1, got 0"
    ),
    ErrorCase("cosine", lambda: optim.CosineAnnealingLR(sgd(), 0), ValueRangeError, "T_max must be a whole number >= 1, got 0"),
    ErrorCase("warm-up", lambda: optim.WarmupLR(sgd(), 0), ValueRangeError, "warmup_steps must be a whole number >= 1, got 0"),
    ErrorCase(
        "warm-up of another optimiser",
        lambda: optim.WarmupLR(sgd(), 3, optim.StepLR(sgd(), 1)),
        ValueRangeError,
        "WarmupLR: then must be a schedule of the same optimizer.",
    ),
]


@pytest.mark.parametrize("case", ERRORS, ids=str)
def test_what_is_wrong_is_refused_with_a_message(case):
    with pytest.raises(case.error) as caught:
        case.call()
    assert case.message in str(caught.value)
    assert isinstance(caught.value, CnnlibError)


def test_a_missed_parameter_is_a_warning_that_names_it():
    model = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))
    opt = optim.SGD(model[0].parameters())
    with pytest.warns(
        UserWarning, match=r"SGD misses 2 trainable parameters of Sequential: 1\.weight, 1\.bias\. They will not"
    ):
        assert optim.check_parameters(model, opt) == ["1.weight", "1.bias"]


def test_a_frozen_parameter_is_not_missed():
    model = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))
    for p in model[1].parameters():
        p.requires_grad = False
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert optim.check_parameters(model, optim.SGD(model[0].parameters())) == []


@pytest.mark.parametrize("kind", [optim.Adam, optim.Adagrad, optim.RMSprop])
def test_the_state_follows_a_parameter_to_another_dtype(kind):
    w, wide = cl.Parameter(np.ones(5, np.float32)), cl.Parameter(np.ones(5))
    for p, dtype in ((w, "float32"), (wide, "float64")):
        optimizer = kind([p])
        for turn in range(2):
            p.grad = np.full(5, 0.5, p.dtype)
            optimizer.step()
            if turn == 0 and dtype == "float32":
                p.data = p.data.astype(np.float64)  # as Module.to does
        assert all(a.dtype == np.float64 for name, a in optimizer.state[0].items() if name != "step")
    np.testing.assert_allclose(w.data, wide.data, rtol=1e-6)


@pytest.mark.parametrize("kind", [optim.SGD, optim.Adagrad, optim.RMSprop, optim.Adam, optim.AdamW])
def test_a_parameter_without_axes_learns(kind):
    w = cl.Parameter(5.0)
    optimizer = kind([w], lr=0.1)
    for _ in range(3):
        w.grad = None
        (w * w).backward()
        optimizer.step()
    assert w.shape == () and float(w.data) < 5.0
    assert all(isinstance(a, np.ndarray) and a.any() for name, a in optimizer.state[0].items() if name != "step")
