"""Distributions against SciPy, draws against their distribution, divergences against numerical expectations."""

import numpy as np
import pytest
from scipy import special, stats

import cnnlib as cl
from cnnlib import Tensor
from cnnlib.distributions import Bernoulli, Categorical, Normal, kl
from cnnlib.errors import DtypeError, GraphError, NonFiniteError, ShapeError, ValueRangeError

rng = np.random.default_rng(0)
MEAN, LOG_VAR = rng.standard_normal((4, 3)), rng.uniform(-6, 6, (4, 3))
LOGITS = 4 * rng.standard_normal((4, 3))


# ---- log_prob


@pytest.mark.parametrize("shape", [(4, 3), (3,), (5, 4, 3), ()])
def test_normal_log_prob_is_scipys(shape):
    x = np.asarray(3 * rng.standard_normal(shape))
    expected = stats.norm(MEAN, np.exp(0.5 * LOG_VAR)).logpdf(x)
    np.testing.assert_allclose(Normal(MEAN, log_var=LOG_VAR).log_prob(Tensor(x)).numpy(), expected, rtol=1e-12)
    np.testing.assert_allclose(Normal(MEAN, std=np.exp(0.5 * LOG_VAR)).log_prob(Tensor(x)).numpy(), expected, rtol=1e-12)


@pytest.mark.parametrize("shape", [(4, 3), (3,), (5, 4, 3)])
def test_bernoulli_log_prob_is_scipys(shape):
    x = rng.integers(0, 2, shape)
    expected = stats.bernoulli(special.expit(LOGITS)).logpmf(x)
    np.testing.assert_allclose(Bernoulli(LOGITS).log_prob(x).numpy(), expected, rtol=1e-9, atol=1e-12)


def test_bernoulli_log_prob_of_grey_pixels_is_the_cross_entropy():
    x = rng.uniform(size=(4, 3))
    expected = -cl.ops.binary_cross_entropy_with_logits(LOGITS, x, reduction="none").numpy()
    np.testing.assert_allclose(Bernoulli(LOGITS).log_prob(x).numpy(), expected, rtol=1e-12)


@pytest.mark.parametrize("shape", [(), (4,), (2, 5)])
def test_categorical_log_prob_is_scipys(shape):
    logits, labels = 3 * rng.standard_normal((*shape, 6)), rng.integers(0, 6, shape)
    expected = np.take_along_axis(special.log_softmax(logits, axis=-1), labels[..., None], -1)[..., 0]
    d = Categorical(logits)
    np.testing.assert_allclose(d.log_prob(labels).numpy(), expected, rtol=1e-12)
    np.testing.assert_allclose(d.probabilities.numpy(), special.softmax(logits, axis=-1), rtol=1e-12)


def test_far_logits_stay_numbers():
    """Where a probability rounds to 0 or 1, its logarithm is still right."""
    far = Tensor([-1000.0, 1000.0])
    np.testing.assert_array_equal(Bernoulli(far).log_prob(Tensor([1.0, 0.0])).numpy(), [-1000.0, -1000.0])
    np.testing.assert_array_equal(Categorical(far).log_prob(Tensor(0)).numpy(), -2000.0)


def test_gradients_of_log_prob():
    x, labels = rng.standard_normal((4, 3)), rng.integers(0, 3, 4)
    bits = rng.integers(0, 2, (4, 3)).astype(float)
    cl.gradcheck(lambda x, m, s: Normal(m, log_var=s).log_prob(x), x, MEAN, LOG_VAR)
    cl.gradcheck(lambda x, m, s: Normal(m, std=s).log_prob(x), x, MEAN, np.exp(0.2 * LOG_VAR))
    cl.gradcheck(lambda logits: Bernoulli(logits).log_prob(bits), LOGITS)
    cl.gradcheck(lambda logits: Categorical(logits).log_prob(labels), LOGITS)


def test_float32_stays_float32():
    x = Tensor(MEAN.astype(np.float32))
    for d in (Normal(x, std=1.0), Normal(x, log_var=0.0), Normal(0, std=x * x), Bernoulli(x)):
        assert d.log_prob(Tensor(np.ones((4, 3), np.float32))).dtype == d.sample().dtype == np.float32
    assert Normal(0, std=1).log_prob(0.5).dtype == Bernoulli([1, 2]).log_prob([0, 1]).dtype == np.float32
    assert Normal(MEAN, std=1.0).rsample().dtype == np.float64


# ---- draws


def test_normal_draws_follow_the_distribution():
    cl.manual_seed(1)
    d = Normal([0.0, 5.0], std=[1.0, 0.1])
    draws = d.sample(4000).numpy().astype(float)
    assert draws.shape == (4000, 2)
    for column, (mean, std) in zip(draws.T, [(0, 1), (5, 0.1)], strict=True):
        assert stats.kstest(column, stats.norm(mean, std).cdf).pvalue > 0.01
    np.testing.assert_allclose(d.std.numpy(), [1.0, 0.1], rtol=1e-6)
    np.testing.assert_allclose(d.variance.numpy(), [1.0, 0.01], rtol=1e-6)


def test_bernoulli_and_categorical_draws_follow_their_probabilities():
    cl.manual_seed(1)
    p = np.array([0.02, 0.5, 0.9])
    ones = Bernoulli(special.logit(p)).sample(4000).numpy().sum(axis=0)
    assert all(stats.binomtest(int(k), 4000, q).pvalue > 0.01 for k, q in zip(ones, p, strict=True))
    q = np.array([[0.1, 0.0, 0.6, 0.3], [0.25, 0.25, 0.25, 0.25]])
    d = Categorical(np.log(q + 1e-300))
    draws = d.sample(4000).numpy()
    assert draws.shape == (4000, 2) and draws.dtype == np.int64
    for column, probabilities in zip(draws.T, q, strict=True):
        counts, seen = np.bincount(column, minlength=4), probabilities > 0
        assert counts[~seen].sum() == 0
        assert stats.chisquare(counts[seen], 4000 * probabilities[seen]).pvalue > 0.01


def test_the_seed_decides_the_draws():
    d = Normal(np.zeros(5, np.float32), std=1.0)
    cl.manual_seed(3)
    first, second = d.sample().numpy(), d.sample().numpy()
    cl.manual_seed(3)
    np.testing.assert_array_equal(d.sample().numpy(), first)
    assert not np.array_equal(first, second)


def test_a_reparameterised_draw_moves_with_its_parameters():
    mean, log_var = Tensor(MEAN, requires_grad=True), Tensor(LOG_VAR, requires_grad=True)
    x = Normal(mean, log_var=log_var).rsample(2)
    x.sum().backward()
    np.testing.assert_allclose(mean.grad, 2.0)  # ∂x/∂μ = 1, in both draws
    np.testing.assert_allclose(log_var.grad, 0.5 * (x.numpy() - MEAN).sum(axis=0), rtol=1e-12)  # ∂σ/∂ln σ² = σ/2


def test_the_gradient_of_an_expectation_is_estimated_through_draws():
    """E[x²] = μ² + σ², so its derivatives are 2μ and, by ln σ², σ²."""
    cl.manual_seed(0)
    mean, log_var = Tensor([0.7], requires_grad=True), Tensor([-1.0], requires_grad=True)
    (Normal(mean, log_var=log_var).rsample(40000) ** 2).mean().backward()
    np.testing.assert_allclose([mean.grad[0], log_var.grad[0]], [1.4, np.exp(-1.0)], rtol=0.03)


def test_no_gradient_flows_through_sample():
    assert not Normal(Tensor(MEAN, requires_grad=True), std=1.0).sample().requires_grad


# ---- divergences


def test_kl_of_normals_is_the_numerical_integral():
    q, p = stats.norm(0.3, 0.5), stats.norm(-1.0, 2.0)
    x = np.linspace(-5, 5, 20001)
    expected = np.trapezoid(q.pdf(x) * (q.logpdf(x) - p.logpdf(x)), x)
    assert kl(Normal(0.3, std=0.5), Normal(-1.0, std=2.0)).item() == pytest.approx(expected, rel=1e-6)


def test_kl_of_discrete_distributions_is_scipys():
    other = rng.standard_normal((4, 3))
    q, p = special.softmax(LOGITS, axis=-1), special.softmax(other, axis=-1)
    np.testing.assert_allclose(kl(Categorical(LOGITS), Categorical(other)).numpy(), stats.entropy(q, p, axis=-1), rtol=1e-10)
    q, p = special.expit(LOGITS), special.expit(other)
    expected = special.rel_entr(q, p) + special.rel_entr(1 - q, 1 - p)
    np.testing.assert_allclose(kl(Bernoulli(LOGITS), Bernoulli(other)).numpy(), expected, rtol=1e-8, atol=1e-12)


PAIRS = {
    "normal": lambda a, b: kl(Normal(a, log_var=b), Normal(b, log_var=a)),
    "bernoulli": lambda a, b: kl(Bernoulli(a), Bernoulli(b)),
    "categorical": lambda a, b: kl(Categorical(a), Categorical(b)),
}


@pytest.mark.parametrize("pair", PAIRS)
def test_gradients_of_the_divergence(pair):
    cl.gradcheck(PAIRS[pair], MEAN, rng.standard_normal((4, 3)))


@pytest.mark.parametrize("pair", PAIRS)
def test_the_divergence_is_never_negative_and_zero_for_equals(pair):
    a = rng.standard_normal((50, 3))
    assert (PAIRS[pair](a, rng.standard_normal((50, 3))).numpy() >= 0).all()
    np.testing.assert_allclose(PAIRS[pair](a, a).numpy(), 0.0, atol=1e-12)


def test_a_prior_of_plain_numbers_broadcasts():
    q = Normal(Tensor(MEAN.astype(np.float32)), log_var=Tensor(LOG_VAR.astype(np.float32)))
    expected = 0.5 * (np.exp(LOG_VAR) + MEAN**2 - 1 - LOG_VAR)
    divergence = kl(q, Normal(0.0, std=1.0))
    assert divergence.dtype == np.float32
    np.testing.assert_allclose(divergence.numpy(), expected, rtol=1e-5)


def test_plain_numbers_take_the_type_of_what_they_meet():
    standard, wide = Normal(0, std=1), Normal(Tensor(MEAN), log_var=LOG_VAR)
    for pair in ((wide, standard), (standard, wide)):
        assert kl(*pair).dtype == np.float64
    assert standard.log_prob(MEAN).dtype == np.float64
    np.testing.assert_allclose(Normal(0.0, std=0.3).log_prob(MEAN).numpy(), stats.norm(0, 0.3).logpdf(MEAN), rtol=1e-13)


# ---- refusals

F32 = np.ones((2, 3), np.float32)
REFUSED = {
    "neither": (lambda: Normal(0.0), ValueRangeError, "give either std = σ or log_var = ln σ², by name"),
    "both": (lambda: Normal(0.0, std=1.0, log_var=0.0), ValueRangeError, "give either std"),
    "std": (lambda: Normal(0.0, std=[1.0, 0.0]), ValueRangeError, r"std must be above 0, but 0 is at position \(1,\)"),
    "overflow": (
        lambda: Normal(0.0, log_var=[0.0, 95.0]),
        ValueRangeError,
        r"ln σ² is 95 at position \(1,\), beyond ±80: .* overflows",
    ),
    "underflow": (lambda: Normal(0.0, log_var=-95.0), ValueRangeError, "underflows float32.*clip"),
    "nan": (lambda: Normal([0.0, np.nan], std=1.0), NonFiniteError, r"mean is nan at position \(1,\)"),
    "nan-log-var": (lambda: Normal(0.0, log_var=np.nan), NonFiniteError, "log_var is nan"),
    "nan-logits": (lambda: Bernoulli([np.inf]), NonFiniteError, "logits is inf"),
    "nan-classes": (lambda: Categorical([[0.0, np.nan]]), NonFiniteError, r"logits is nan at position \(0, 1\)"),
    "integers": (lambda: Bernoulli(np.array([1, 2])), DtypeError, "logits must be float32"),
    "shapes": (lambda: Normal(F32, std=np.ones(2, np.float32)), ShapeError, r"mean \(2, 3\) and spread \(2,\)"),
    "x": (lambda: Normal(F32, std=1.0).log_prob(np.ones(2, np.float32)), ShapeError, r"x \(2,\) and distribution \(2, 3\)"),
    "pixels": (
        lambda: Bernoulli(F32).log_prob(255 * F32),
        ValueRangeError,
        r"must be in 0 … 1, but 255 is at position \(0, 0\).*divide by 255",
    ),
    "nan-pixels": (lambda: Bernoulli(F32).log_prob(np.nan * F32), ValueRangeError, "but nan is at"),
    "class": (lambda: Categorical(F32).log_prob([0, 3]), ValueRangeError, r"label 3 at position \(1,\) is outside 0 … 2"),
    "ignored": (lambda: Categorical(F32).log_prob([0, -100]), ValueRangeError, "label -100"),
    "labels": (lambda: Categorical(F32).log_prob([0.0, 1.0]), DtypeError, "labels must be integers"),
    "rows": (lambda: Categorical(F32).log_prob([0]), ShapeError, r"labels must have shape \(2,\); got \(1,\)"),
    "none": (lambda: Categorical(1.0), ShapeError, "at least one class"),
    "n": (lambda: Bernoulli(F32).sample(0), ValueRangeError, "n must be a whole number >= 1"),
    "rsample": (lambda: Bernoulli(F32).rsample(), GraphError, "discrete value has no derivative"),
    "kinds": (lambda: kl(Bernoulli(0.0), Normal(0.0, std=1.0)), DtypeError, "got Bernoulli and Normal"),
    "divergence": (
        lambda: kl(Bernoulli(F32), Bernoulli(F32[:, :2])),
        ShapeError,
        r"kl: shapes do not broadcast: q \(2, 3\) and p \(2, 2\)",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_is_refused(case):
    call, error, message = REFUSED[case]
    with pytest.raises(error, match=message):
        call()


TAKES_NUMBERS = {
    "Normal: mean": lambda x: Normal(x, std=1.0),
    "Normal: std": lambda x: Normal(0.0, std=[x]),
    "Normal: log_var": lambda x: Normal(F32, log_var=[x]),
    "Bernoulli: logits": Bernoulli,
    "Categorical: logits": Categorical,
    "Normal.log_prob: x": Normal(F32, std=1.0).log_prob,
    "Bernoulli.log_prob: x": Bernoulli(F32).log_prob,
    "Categorical.log_prob: labels": Categorical(F32).log_prob,
}


@pytest.mark.parametrize("value", [None, "a", [None], ["a"], {}, 1j, [[1], [1, 2]], np.array(["a"])], ids=repr)
@pytest.mark.parametrize("which", TAKES_NUMBERS)
def test_what_is_no_number_is_refused_by_name(which, value):
    with pytest.raises(
        DtypeError, match=f"^{which} must be a Tensor, an array, a number or equally long lists of numbers, got "
    ):
        TAKES_NUMBERS[which](value)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    "x", [[1, 0, 1], [1.0, 0.0, 1.0], np.array([1, 0, 1]), Tensor([1, 0, 1]), np.array([True, False, True])]
)
def test_lists_and_whole_numbers_have_the_dtype_of_the_parameters(x, dtype):
    parameter = np.array([0.5, -1.0, 2.0], dtype)
    for distribution in (Normal(parameter, std=2.0), Bernoulli(parameter)):
        found = distribution.log_prob(x)
        assert found.dtype == dtype
        np.testing.assert_array_equal(found.numpy(), distribution.log_prob(np.array([1, 0, 1], dtype)).numpy())
